"""The domains of the host as Xen lists them, with the names that xenstore has for them."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

import msgspec

from xenintro.errors import NoSuchDomainError
from xenintro.xen import signatures
from xenintro.xen.xenstore import XenStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.signatures import Release
    from xenintro.xen.xc import Xc

#: struct xen_domctl_getdomaininfo (domctl.h): this prefix is the same from 4.3 to 4.22.
#: domain, flags, tot_pages, max_pages, (4 counters), cpu_time, (online), max_vcpu_id, (ssid), handle
_PREFIX = struct.Struct("=H2xIQQ32xQ4xI4x16s")

_DYING, _HVM, _SHUTDOWN, _PAUSED = 1, 2, 4, 8  # XEN_DOMINF_*
_REASON_SHIFT, _REASON_MASK = 16, 0xFF
_NO_VCPU = 0xFFFFFFFF  # XEN_INVALID_MAX_VCPU_ID


class DomainInfo(msgspec.Struct, frozen=True):
    """One domain.

    Attributes:
        domid: its number; Xen gives numbers out again, the uuid it does not.
        uuid: as in its configuration.
        hvm: HVM or PVH: it can be watched.
        hap: hardware-assisted paging; None where Xen does not say (before 4.8).
        paused: by the toolstack. A vCPU that waits for a monitor does not make it so.
        dying: being destroyed.
        shutdown: powered off, rebooting, suspended or crashed.
        shutdown_reason: SHUTDOWN_* (xen/sched.h: 3 is a crash), None unless shutdown.
        nr_vcpus: how many it may have; their ids are below this.
        tot_pages: 4 KiB pages it has.
        max_pages: pages it may have.
        cpu_time_ns: of all its vCPUs so far.
        name: from xenstore, None where unknown.
    """

    domid: int
    uuid: str
    hvm: bool
    hap: bool | None
    paused: bool
    dying: bool
    shutdown: bool
    shutdown_reason: int | None
    nr_vcpus: int
    tot_pages: int
    max_pages: int
    cpu_time_ns: int
    name: str | None


def called(info: DomainInfo) -> str:
    """How a domain is called in what is said about it."""
    return f"{info.name} (domid {info.domid})" if info.name else f"domain {info.domid}"


def domain_info(xc: Xc, domid: int, *, named: bool = True) -> DomainInfo:
    """One domain by its number.

    Args:
        xc: an open libxc.
        domid: the number.
        named: ask xenstore for its name; without, only Xen is asked, which never waits for another process.

    Raises:
        NoSuchDomainError: there is none.
    """
    record = xc.getinfolist(domid) if 0 <= domid <= 0xFFFF else None
    # Xen answers with the next domain there is when this one is gone.
    if record is None or _PREFIX.unpack_from(record)[0] != domid:
        raise NoSuchDomainError(f"no domain {domid}", why="Xen does not list it", hint="see: xenintro list")
    if not named:
        return _parse(record, xc.release, None)
    with XenStore() as store:
        return _parse(record, xc.release, store)


def still_there(xc: Xc, info: DomainInfo) -> DomainInfo | None:
    """The domain as it is now; None if it is no more, or is being freed, or another one has its number."""
    try:
        now = domain_info(xc, info.domid, named=False)
    except NoSuchDomainError:
        return None
    return None if now.dying or now.uuid != info.uuid else now


def is_gone(xc: Xc, info: DomainInfo) -> bool:
    """Whether it is not `still_there`."""
    return still_there(xc, info) is None


def list_domains(xc: Xc) -> list[DomainInfo]:
    """All domains in the order of their numbers, the control domain included."""
    with XenStore() as store:
        return [_parse(record, xc.release, store) for record in _records(xc)]


def _records(xc: Xc) -> Iterator[bytes]:
    domid = 0
    while (record := xc.getinfolist(domid)) is not None:
        yield record
        domid = _PREFIX.unpack_from(record)[0] + 1


def _parse(record: bytes, release: Release, store: XenStore | None) -> DomainInfo:
    domid, flags, tot_pages, max_pages, cpu_time, max_vcpu_id, handle = _PREFIX.unpack_from(record)
    hap = signatures.hap_flag(release)
    shutdown = bool(flags & _SHUTDOWN)
    return DomainInfo(
        domid=domid,
        uuid=str(uuid.UUID(bytes=handle)),
        hvm=bool(flags & _HVM),
        hap=None if hap is None else bool(flags & hap),
        paused=bool(flags & _PAUSED),
        dying=bool(flags & _DYING),
        shutdown=shutdown,
        shutdown_reason=flags >> _REASON_SHIFT & _REASON_MASK if shutdown else None,
        nr_vcpus=0 if max_vcpu_id == _NO_VCPU else max_vcpu_id + 1,
        tot_pages=tot_pages,
        max_pages=max_pages,
        cpu_time_ns=cpu_time,
        name=store.read(f"/local/domain/{domid}/name") if store else None,
    )
