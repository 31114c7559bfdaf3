"""What a failed libxc call means to a person: data, by call and errno.

From the error returns of Xen 4.6 to 4.22 (common/domctl.c, common/vm_event.c, common/monitor.c,
common/mem_access.c, arch/x86/hvm/hvm.c) and of libxc itself.
"""

from __future__ import annotations

import errno as codes
import fnmatch
import os
from typing import NamedTuple

from xenintro.errors import (
    DomainBusyError,
    NoSuchDomainError,
    NotSupportedError,
    NoXenError,
    ReleaseError,
    XenCallError,
    XenintroError,
)


class Meaning(NamedTuple):
    """What one errno of one call says. Texts may use {call}, {errno}, {domid} and {tried}."""

    error: type[XenintroError]
    why: str
    hint: str = ""
    what: str = "{tried}"


#: What was being tried, by call; the first pattern that matches counts.
_TRIED = {
    "xc_interface_open": "cannot open /dev/xen/privcmd",
    "xenevtchn_open": "cannot open /dev/xen/evtchn",
    "xenevtchn_*": "the event channel of domain {domid} does not work",
    "xc_version": "cannot ask Xen for its version",
    "xc_vm_event_get_version": "cannot ask Xen for its vm_event version",
    "xencall_*": "cannot open /dev/xen/privcmd for a hypercall",
    "xencall1": "Xen refuses a domctl for domain {domid}",
    "xc_domain_pause": "cannot pause domain {domid}",
    "xc_domain_unpause": "cannot unpause domain {domid}",
    "xc_domain_getinfolist": "cannot list the domains",
    "xc_monitor_get_capabilities": "cannot ask what domain {domid} can be watched for",
    "xc_monitor_enable": "cannot watch domain {domid}",
    "xc_monitor_disable": "cannot release domain {domid}",
    "xc_monitor_resume": "cannot answer the vCPUs of domain {domid}",
    "xc_hvm_inject_trap": "cannot inject a trap into domain {domid}",
    "*mem_access*": "cannot read or set page permissions of domain {domid}",
    "xc_altp2m_*": "cannot use altp2m views of domain {domid}",
    "xc_monitor_*": "cannot switch a trap of domain {domid} ({call})",
    "*": "{call} failed for domain {domid}",
}

_ROOT = "try it as root, in the control domain"
_GUESTS = "the guest must be HVM or PVH, and Xen built with CONFIG_VM_EVENT"
_UNSUPPORTED_TRAP = Meaning(
    NotSupportedError,
    "this CPU or hypervisor does not offer it ({errno} from {call})",
    "see what there is: xenintro doctor --domid {domid}",
)
_NO_ALTP2M = Meaning(
    NotSupportedError,
    "altp2m is off for this domain, or the CPU has none ({errno} from {call})",
    'set altp2m="external" in the domain\'s configuration and restart it',
)
_NO_SUCH_DOMAIN = Meaning(
    NoSuchDomainError,
    "{call} says {errno}: it never existed, or it is gone",
    "see: xenintro list",
    what="no domain {domid}",
)
_NO_RING_PAGE = Meaning(
    NotSupportedError,
    "it has no monitor ring page, or Xen has no vm_event ({errno} from {call})",
    _GUESTS,
)
_NO_DEVICE = Meaning(
    NoXenError,
    "not the control domain of a Xen host, or its driver is not loaded ({errno} from {call})",
    "in dom0: modprobe xen-privcmd xen-evtchn      elsewhere: xenintro demo",
)
_NO_PERMISSION = Meaning(
    NoXenError,
    "watching a guest needs root in the control domain ({errno} from {call})",
    "try: sudo xenintro watch --domid ID",
    what="{tried} (permission denied)",
)

#: The first row whose pattern matches the call and that has the errno counts.
MEANINGS: tuple[tuple[str, dict[int, Meaning]], ...] = (
    (
        "xc_interface_open",
        dict.fromkeys((codes.ENOENT, codes.ENXIO, codes.ENODEV), _NO_DEVICE)
        | dict.fromkeys((codes.EACCES, codes.EPERM), _NO_PERMISSION),
    ),
    (
        "xenevtchn_open",
        dict.fromkeys((codes.ENOENT, codes.ENXIO, codes.ENODEV), _NO_DEVICE)
        | dict.fromkeys((codes.EACCES, codes.EPERM), _NO_PERMISSION),
    ),
    (
        "xc_monitor_enable",
        {
            # libxc also passes on EBUSY when the guest is at its memory limit and the ring page
            # cannot be put back; the common cause is another agent.
            codes.EBUSY: Meaning(
                DomainBusyError,
                "another vm_event agent is attached, or one died without releasing it ({errno} from {call})",
                "see who: xenintro doctor --domid {domid}      if nobody: xenintro rescue --domid {domid}",
                what="domain {domid} is busy",
            ),
            codes.ENODEV: _NO_RING_PAGE,
            codes.ENOSYS: _NO_RING_PAGE,  # up to 4.12
            codes.EOPNOTSUPP: _NO_RING_PAGE,
            codes.EINVAL: _NO_RING_PAGE,  # a PV guest has no HVM parameters
        },
    ),
    (
        "xc_monitor_disable",
        {
            codes.EBUSY: Meaning(
                ReleaseError,
                "a vCPU waits inside Xen for a free slot of the ring ({errno} from {call})",
                "if its monitor lives, end it; if not: xenintro rescue --domid {domid}",
            ),
            codes.EINVAL: Meaning(XenCallError, "no monitor ring is enabled ({errno} from {call})"),
        },
    ),
    (
        "xc_monitor_resume",
        {codes.ENODEV: Meaning(XenCallError, "no monitor ring is enabled ({errno} from {call})")},
    ),
    (
        "xc_monitor_*",
        {
            codes.EEXIST: Meaning(XenCallError, "it already is in that state ({errno} from {call})"),
            codes.EOPNOTSUPP: _UNSUPPORTED_TRAP,
            codes.ENOSYS: _UNSUPPORTED_TRAP,
            codes.ENXIO: Meaning(
                XenCallError,
                "no monitor ring is enabled ({errno} from {call})",
                "attach to the domain first",
            ),
            codes.EINVAL: Meaning(
                XenCallError,
                "Xen does not know this register, MSR or option ({errno} from {call})",
            ),
        },
    ),
    (
        "xc_altp2m_*",
        {
            codes.EOPNOTSUPP: _NO_ALTP2M,
            codes.ENOSYS: _NO_ALTP2M,
            codes.EINVAL: Meaning(
                XenCallError,
                "no such view, no free view, no such page, or altp2m is off ({errno} from {call})",
                'views need altp2m="external" in the domain\'s configuration',
            ),
            codes.EBUSY: Meaning(
                XenCallError,
                "a vCPU uses this view ({errno} from {call})",
                "switch to view 0 first",
            ),
        },
    ),
    (
        "xc_?et_mem_access*",
        {
            codes.ENODEV: Meaning(
                XenCallError,
                "no monitor ring is enabled ({errno} from {call})",
                "attach to the domain first",
            ),
            codes.EINVAL: Meaning(
                NotSupportedError,
                "needs an HVM guest with HAP on an Intel CPU, and pages that it has ({errno} from {call})",
                "see: xenintro doctor --domid {domid}",
            ),
        },
    ),
    (
        "xencall1",
        {
            codes.EACCES: Meaning(XenCallError, "it speaks another version of it ({errno})"),
            codes.EOPNOTSUPP: Meaning(NotSupportedError, "this Xen does not know it ({errno})"),
            codes.ENOSYS: Meaning(NotSupportedError, "this Xen does not know it ({errno})"),
        },
    ),
    (
        "xc_domain_debug_control",
        {
            code: Meaning(
                NotSupportedError,
                "single-stepping needs an Intel CPU with the Monitor Trap Flag ({errno} from {call})",
            )
            for code in (codes.EOPNOTSUPP, codes.ENOSYS)
        },
    ),
    (
        "xc_domain_populate_physmap_exact",
        {codes.EBUSY: Meaning(XenCallError, "it is at its memory limit, or dying ({errno} from {call})")},
    ),
    (
        "xc_domain_unpause",
        {codes.EINVAL: Meaning(XenCallError, "it is not paused ({errno} from {call})")},
    ),
    (
        "xc_domain_pause",
        {codes.EOVERFLOW: Meaning(XenCallError, "it is paused 255 times already ({errno} from {call})")},
    ),
    (
        "xc_hvm_inject_trap",
        {codes.EBUSY: Meaning(XenCallError, "one is pending for this vCPU already ({errno} from {call})")},
    ),
    (
        "*",
        {
            codes.ESRCH: _NO_SUCH_DOMAIN,
            codes.EPERM: Meaning(NoXenError, "Xen refuses it ({errno} from {call})", _ROOT),
            codes.EACCES: Meaning(
                NoXenError,
                "this libxenctrl is of another release than the running Xen, or the XSM policy "
                "forbids it ({errno} from {call})",
                "compare: xl info | grep xen_version      name the right directory: --xen DIR",
            ),
            codes.ENOMEM: Meaning(
                XenCallError, "Xen or the control domain has no memory left ({errno} from {call})"
            ),
        },
    ),
)

_UNKNOWN = Meaning(XenCallError, "{call}: {errno}")

#: What to do where the row does not know better.
_DOCTOR = "see what keeps it from working: xenintro doctor --domid {domid}"

#: Numbers with several names, by the one that Xen uses.
_NAMES = {
    **codes.errorcode,
    **{getattr(codes, name): name for name in ("EOPNOTSUPP", "EAGAIN", "EDEADLK")},
}


def failure(call: str, errno: int, domid: int | None = None) -> XenintroError:
    """The error to raise for a call that failed.

    Args:
        call: the C function, for instance ``xc_monitor_enable``.
        errno: what it left in errno.
        domid: the domain it was about, if it was about one.
    """
    meaning = next(
        (rows[errno] for pattern, rows in MEANINGS if errno in rows and fnmatch.fnmatchcase(call, pattern)),
        _UNKNOWN,
    )
    words = {
        "call": call,
        "errno": _NAMES.get(errno, f"errno {errno}"),
        "domid": "?" if domid is None else domid,
    }
    tried = next(text for pattern, text in _TRIED.items() if fnmatch.fnmatchcase(call, pattern))
    words["tried"] = tried.format(**words)
    what, why, hint = (text.format(**words) for text in (meaning.what, meaning.why, meaning.hint or _DOCTOR))
    if meaning is _UNKNOWN:
        why = f"{why} ({os.strerror(errno)})"
    if issubclass(meaning.error, XenCallError):
        return meaning.error(what, call=call, errno=errno, why=why, hint=hint)
    return meaning.error(what, why=why, hint=hint)
