"""What must hold before a domain is attached to: everything that can be refused is refused here."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xenintro.abi import CAPABILITIES, Interface, interface_of_version
from xenintro.errors import DomainGoneError, NotSupportedError, UsageError, XenCallError, XenintroError
from xenintro.traps import Trap
from xenintro.xen import signatures
from xenintro.xen.arming import has_singlestep
from xenintro.xen.domains import DomainInfo, domain_info

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenintro.xen.xc import Xc

_WHY_NOT: Mapping[str, str] = {
    "singlestep": "single-stepping needs the monitor trap flag, which only Intel CPUs have",
    "privileged_call": "privileged calls exist on Arm only",
    "vmexit": "VM exits can be trapped from Xen 4.17 on",
    "descriptor_access": "descriptor accesses can be trapped from Xen 4.9 on, if the CPU can",
}

#: Options of a trap, and the argument of the call that a release must have for it.
_OPTIONS = (
    ("write_ctrlreg", "mask", "xc_monitor_write_ctrlreg", "bitmask"),
    ("mov_to_msr", "onchange", "xc_monitor_mov_to_msr", "onchangeonly"),
    ("guest_request", "userspace", "xc_monitor_guest_request", "allow_userspace"),
)

#: MSRs that Xen can trap since 4.8 (arch/x86/monitor.c: monitor_bitmap_for_msr).
_MSR_RANGES = (range(0x2000), range(0x40000000, 0x40002000), range(0xC0000000, 0xC0002000))

#: Outside of them: trapping it fails with ENXIO without a ring, with EINVAL with one.
_IMPOSSIBLE_MSR = 0x3000

#: Asks for the default permission, which every domain has; a page may be missing.
_DEFAULT_PAGE = (1 << 64) - 1

#: SHUTDOWN_* (xen/sched.h).
_SHUTDOWN_REASONS = ("powered off", "rebooting", "suspended", "crashed", "killed by its watchdog")


def check_domain(xc: Xc, domid: int) -> DomainInfo:
    """The domain, if it can be watched.

    Raises:
        NoSuchDomainError: there is none.
        DomainGoneError: it is being destroyed, or has shut down or crashed.
        NotSupportedError: a PV domain, or more vCPUs than this release can wake again.
    """
    info = domain_info(xc, domid)
    name = f"domain {domid}" + (f" ({info.name})" if info.name else "")
    _check_alive(info, name)
    if not info.hvm:
        raise NotSupportedError(
            f"{name} is a PV domain",
            why="Xen reports vm_events of HVM and PVH domains only",
            hint="see which can be watched: xenintro list",
        )
    if info.nr_vcpus > 8 and xc.release < (4, 9):
        raise NotSupportedError(
            f"{name} has {info.nr_vcpus} vCPUs",
            why="Xen 4.6 to 4.8 never wake a vCPU that waited for the ring when there are more than 8 "
            "(7f8445d967, fixed in 4.9)",
            hint="give the domain at most 8 vCPUs, or use Xen 4.9 or newer",
        )
    return info


def _check_alive(info: DomainInfo, name: str) -> None:
    if info.dying:
        raise DomainGoneError(
            f"{name} is being destroyed",
            why="Xen says it is dying; nothing runs in it any more",
            hint="see what there is: xenintro list",
        )
    if info.shutdown:
        reason = info.shutdown_reason or 0
        word = _SHUTDOWN_REASONS[reason] if reason < len(_SHUTDOWN_REASONS) else "shut down"
        raise DomainGoneError(
            f"{name} is {word}",
            why=f"its shutdown reason is {reason}: nothing runs in it any more",
            hint="watch it when it runs again: xenintro list",
        )


def ring_interface(xc: Xc) -> Interface:
    """The layout that the running hypervisor speaks.

    Raises:
        NotSupportedError: a version newer than this xenintro knows.
    """
    version = xc.vm_event_version()
    layout = interface_of_version(version, "x86_64", f"{xc.release[0]}.{xc.release[1]}")
    if layout is None:
        raise NotSupportedError(
            f"Xen speaks vm_event interface version {version}",
            why="known are 1 to 7, and Xen drops answers of another version",
            hint="update xenintro",
        )
    return layout


def check_traps(xc: Xc, domid: int, traps: tuple[Trap, ...], capabilities: int) -> None:
    """Refuse what this CPU, domain or release cannot trap.

    Raises:
        NotSupportedError: names the trap and the reason.
        UsageError: a page that the domain does not have.
    """
    for trap in traps:
        _check_capability(trap, capabilities)
        _check_options(xc, trap)
        _check_msr(xc, trap)
    pages = [trap for trap in traps if trap.reason == "mem_access"]
    if pages:
        page_permissions(xc, domid)
        last = xc.maximum_gpfn(domid)
        beyond = next((trap for trap in pages if trap.last_gfn > last), None)
        if beyond is not None:
            raise UsageError(
                f"{beyond.text} goes beyond the domain's memory",
                why=f"the last gfn of domain {domid} is {last:#x}",
                hint="give a range that the domain has",
            )


def page_permissions(xc: Xc, domid: int) -> bool:
    """Whether the domain has a monitor ring, asked in the way that fails where page accesses cannot trap.

    xc_get_mem_access gives EINVAL without VMX and hardware-assisted paging, then ENODEV without a ring
    (mem_access_memop, common/mem_access.c).

    Raises:
        NotSupportedError: page accesses cannot be trapped.
    """
    try:
        xc.get_mem_access(domid, _DEFAULT_PAGE)
    except XenintroError as error:
        if isinstance(error, XenCallError) and error.errno == errno.ENODEV:
            return False
        if domain_info(xc, domid, named=False).dying:  # EINVAL says that too
            raise DomainGoneError(
                f"domain {domid} was just destroyed", why="Xen is freeing it", hint="see: xenintro list"
            ) from error
        raise
    return True


def ring_in_use(xc: Xc, domid: int) -> bool | None:
    """Whether the domain has a monitor ring; None where this release does not tell. Nothing is changed."""
    try:
        return page_permissions(xc, domid)
    except XenintroError:
        return _msr_ring(xc, domid)


def _msr_ring(xc: Xc, domid: int) -> bool | None:
    """Whether the domain has a ring, from the order of checks in arch_monitor_domctl_event (Xen 4.8)."""
    if xc.release < (4, 8):
        return None
    try:
        xc.mov_to_msr(domid, _IMPOSSIBLE_MSR, enable=True)
    except XenintroError as error:
        code = getattr(error, "errno", None)
        return {errno.ENXIO: False, errno.EINVAL: True}.get(code) if code else None
    return None


def needs_steps(traps: tuple[Trap, ...]) -> bool:
    """Whether every vCPU single-steps from the start."""
    return any(trap.reason == "singlestep" and not trap.asked for trap in traps)


def helper_traps(traps: tuple[Trap, ...], capabilities: int) -> tuple[Trap, ...]:
    """Traps that let the wanted ones pass, where the host has them: steps, failed emulations.

    Raises:
        NotSupportedError: interrupts without an event to ask for them.
    """
    reasons = {trap.reason for trap in traps}
    if "interrupt" in reasons and not any(trap.sync for trap in traps if trap.reason != "interrupt"):
        raise NotSupportedError(
            "interrupts alone cannot be trapped",
            why="they are asked for in the answer to another event",
            hint="add a synchronous event, for instance: -e interrupt,cr3",
        )
    helpers = ("singlestep", "emul_unimplemented") if "mem_access" in reasons else ()
    offered = helpers if has_singlestep(capabilities) else ()
    return tuple(
        Trap(f"{reason} (helper)", reason)
        for reason in offered
        if reason not in reasons and capabilities >> CAPABILITIES[reason] & 1
    )


def _check_capability(trap: Trap, capabilities: int) -> None:
    bit = CAPABILITIES.get(trap.reason)
    missing = bit is not None and not capabilities >> bit & 1
    needs_step = trap.step and not has_singlestep(capabilities)
    if missing or needs_step:
        why = _WHY_NOT.get("singlestep" if needs_step else trap.reason, "Xen does not offer it here")
        raise NotSupportedError(
            f"this host cannot trap {trap.text}",
            why=f"{why} (capabilities {capabilities:#x})",
            hint="see what it can: xenintro doctor --domid N",
        )


def _check_options(xc: Xc, trap: Trap) -> None:
    for reason, option, call, parameter in _OPTIONS:
        if trap.reason != reason or not getattr(trap, option):
            continue
        if parameter not in xc.library.parameters(call):
            since = signatures.first_release(call, parameter)
            needed = f"Xen {since[0]}.{since[1]}" if since else "a newer Xen"
            raise NotSupportedError(
                f"this Xen has no :{option} for {trap.text}",
                why=f"{call} takes {parameter} from {needed} on; this is {xc.release[0]}.{xc.release[1]}",
                hint="leave the modifier out",
            )


def _check_msr(xc: Xc, trap: Trap) -> None:
    if trap.reason != "mov_to_msr" or xc.release < (4, 8):
        return
    if not any(trap.msr in known for known in _MSR_RANGES):
        ranges = ", ".join(f"{known.start:#x}-{known.stop - 1:#x}" for known in _MSR_RANGES)
        raise NotSupportedError(
            f"Xen cannot trap {trap.text}", why=f"it can trap MSRs {ranges}", hint="choose another MSR"
        )


def has_altp2m(xc: Xc, domid: int) -> bool:
    """Whether the domain has views."""
    try:
        return xc.altp2m_state(domid)
    except XenintroError:  # not on this host, or not in the domain's configuration
        return False
