"""Who has a domain, asked before anything is changed in it: one answer for all who want to attach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import DomainBusyError
from xenintro.xen.domains import called
from xenintro.xen.entries import Entries
from xenintro.xen.liveness import check_nobody_watches
from xenintro.xen.preflight import ring_in_use
from xenintro.xen.statedir import holder, state_file

if TYPE_CHECKING:
    from pathlib import Path

    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc


def check_unoccupied(xc: Xc, info: DomainInfo) -> bool:
    """Pass if nobody has the domain, and no dead monitor left it changed.

    Returns:
        False where this release does not tell whether there is a ring: xc_monitor_enable will.

    Raises:
        DomainBusyError: says who has it, or that a rescue is needed.
    """
    _check_no_journal(info)
    ring = ring_in_use(xc, info.domid)
    if ring:
        check_nobody_watches(xc, info, None)
        raise DomainBusyError(
            f"{called(info)} has the ring of a monitor that is gone",
            why="no process here looks like its monitor",
            hint=f"bring the domain back: xenintro rescue --domid {info.domid}",
        )
    return ring is False


def busy(info: DomainInfo, pid: int | None) -> DomainBusyError:
    """One of our processes has the domain; which one may be unknown."""
    return DomainBusyError(
        f"{called(info)} is busy",
        why=f"a xenintro works on it already: process {pid or 'unknown'}",
        hint=f"see what it does: ps {pid}" if pid else f"see: xenintro doctor --domid {info.domid}",
    )


def not_given_back(info: DomainInfo, path: Path) -> DomainBusyError:
    """One of our processes died and left a journal."""
    return DomainBusyError(
        f"{called(info)} was not given back",
        why=f"the xenintro that had it is gone, and what it left is in {path}",
        hint=f"bring the domain back first: xenintro rescue --domid {info.domid}",
    )


def _check_no_journal(info: DomainInfo) -> None:
    """What `xenintro.xen.journal.Journal.begin` would raise; nothing is locked or written."""
    path = state_file(info.uuid)
    pid = holder(path)
    if pid is not None:
        raise busy(info, pid)
    try:
        entries = Entries.parse(path.read_bytes())
    except OSError:
        return
    if entries.is_about(info):
        raise not_given_back(info, path)
