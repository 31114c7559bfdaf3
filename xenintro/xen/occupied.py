"""Who has a domain, asked before anything is changed in it: one answer for all who want to attach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import DomainBusyError
from xenintro.xen.domains import called
from xenintro.xen.journal import check_free
from xenintro.xen.liveness import check_nobody_watches
from xenintro.xen.preflight import ring_in_use

if TYPE_CHECKING:
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc


def check_unoccupied(xc: Xc, info: DomainInfo) -> bool:
    """Pass if nobody has the domain, and no dead monitor left it changed.

    Returns:
        False where this release does not tell whether there is a ring: xc_monitor_enable will.

    Raises:
        DomainBusyError: says who has it, or that a rescue is needed.
    """
    check_free(info)
    ring = ring_in_use(xc, info.domid)
    if ring:
        check_nobody_watches(xc, info, None)
        raise DomainBusyError(
            f"{called(info)} has the ring of a monitor that is gone",
            why="no process here looks like its monitor",
            hint=f"bring the domain back: xenintro rescue --domid {info.domid}",
        )
    return ring is False
