"""What ``doctor`` finds: every precondition of watching, with what to do where it does not hold."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import CAPABILITIES
from xenintro.errors import XenintroError
from xenintro.xen.locate import is_control_domain
from xenintro.xen.preflight import check_domain, page_permissions, ring_interface
from xenintro.xen.xc import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.xc import Xc

_DEVICES = ("/dev/xen/privcmd", "/dev/xen/evtchn")

#: Outside of Xen's bitmaps: trapping it fails with ENXIO without a ring, with EINVAL with one.
_IMPOSSIBLE_MSR = 0x3000


class Finding(msgspec.Struct, frozen=True):
    """One line of ``doctor``.

    Attributes:
        id: stable name, for programs.
        section: ``host`` or ``domain``.
        level: ``ok``, ``info``, ``warn`` or ``error``.
        what: what was looked at.
        detail: what was found.
        fix: what to do, empty if nothing.
    """

    id: str
    section: str
    level: str
    what: str
    detail: str
    fix: str = ""


def examine(selection: str, domid: int | None = None) -> Iterator[Finding]:
    """Look at the host and, if given, at one domain. Nothing is changed, nothing raised."""
    if selection == "auto":
        yield _control_domain()
        yield from _devices()
    try:
        xc = connect(selection)
    except XenintroError as error:
        yield _failed("libxenctrl", "host", "libxenctrl", error)
        return
    with xc:
        yield from _host(xc)
        if domid is not None:
            yield from _domain(xc, domid)


def _control_domain() -> Finding:
    if is_control_domain():
        return Finding("control-domain", "host", "ok", "control domain", "this is dom0")
    return Finding(
        *(
            "control-domain",
            "host",
            "error",
            "control domain",
            "this is not the control domain of a Xen host",
        ),
        fix="run it in dom0; to try it without Xen: xenintro demo",
    )


def _devices() -> Iterator[Finding]:
    for path in _DEVICES:
        if os.access(path, os.R_OK | os.W_OK):
            yield Finding("device", "host", "ok", path, "readable and writable")
        elif os.path.exists(path):  # noqa: PTH110 - a device name, not a path to compute with
            yield Finding("device", "host", "error", path, "permission denied", "run as root")
        else:
            module = "xen-" + path.rpartition("/")[2]
            yield Finding("device", "host", "error", path, "missing", f"in dom0: modprobe {module}")


def _host(xc: Xc) -> Iterator[Finding]:
    release = f"{xc.release[0]}.{xc.release[1]}"
    missing = xc.missing("xc_monitor_")
    yield Finding(
        *("libxenctrl", "host", "ok", f"libxenctrl.so.{release}"),
        f"monitor calls missing: {', '.join(missing)}" if missing else "every monitor call is there",
    )
    try:
        yield Finding("xen", "host", "ok", "hypervisor", f"Xen {xc.version()}")
        layout = ring_interface(xc)
    except XenintroError as error:
        yield _failed("interface", "host", "vm_event interface", error)
        return
    detail = f"{layout.id}: {layout.nr_slots} slots of {layout.slot_size} bytes"
    yield Finding("interface", "host", "ok", "vm_event interface", detail)


def _domain(xc: Xc, domid: int) -> Iterator[Finding]:
    try:
        info = check_domain(xc, domid)
    except XenintroError as error:
        yield _failed("domain", "domain", f"domain {domid}", error)
        return
    name = info.name or "no name"
    paging = {True: ", hardware-assisted paging", False: ", shadow paging", None: ""}[info.hap]
    yield Finding("domain", "domain", "ok", f"domain {domid}", f"{name}: HVM or PVH{paging}")
    if info.paused:
        fix = f"nothing happens until: xl unpause {domid}"
        yield Finding("paused", "domain", "info", "state", "paused by the toolstack", fix)
    try:
        yield from _abilities(xc, domid)
    except XenintroError as error:
        yield _failed("capabilities", "domain", "capabilities", error)


def ring_in_use(xc: Xc, domid: int) -> bool | None:
    """Whether the domain has a monitor ring; None where this release does not tell. Nothing is changed."""
    try:
        return page_permissions(xc, domid)
    except XenintroError:
        return _msr_ring(xc, domid)


def _abilities(xc: Xc, domid: int) -> Iterator[Finding]:
    bits = xc.capabilities(domid)
    names = [name for name, bit in CAPABILITIES.items() if bits >> bit & 1]
    yield Finding("capabilities", "domain", "ok", "events", ", ".join(names) or "none")
    try:
        page_permissions(xc, domid)
    except XenintroError:
        detail = "page accesses cannot be trapped: that needs an Intel CPU and hardware-assisted paging"
        yield Finding("mem-access", "domain", "warn", "mem_access", detail)
    else:
        yield Finding("mem-access", "domain", "ok", "mem_access", "page accesses can be trapped")
    yield _ring(ring_in_use(xc, domid))


def _ring(in_use: bool | None) -> Finding:
    if in_use is None:
        return Finding("ring", "domain", "info", "other agent", "this release does not tell")
    if in_use:
        return Finding(
            *("ring", "domain", "error", "other agent", "another agent is attached, or one died attached"),
            fix="stop the other agent; if it died, restart the domain",
        )
    return Finding("ring", "domain", "ok", "other agent", "none")


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


def _failed(id: str, section: str, what: str, error: XenintroError) -> Finding:
    detail = f"{error.what}: {error.why}" if error.why else error.what
    return Finding(id, section, "error", what, detail, error.hint)
