"""Pauses of a domain, in its journal before they are taken: Xen counts them, and forgets nobody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.xen.domains import domain_info

if TYPE_CHECKING:
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.journal import Journal
    from xenintro.xen.xc import Xc


class Pauses:
    """The pauses that this process has taken.

    Args:
        xc: an open libxc.
        domid: the domain.
        journal: its journal.

    Attributes:
        count: how many are taken and not given back.
    """

    def __init__(self, xc: Xc, domid: int, journal: Journal) -> None:
        self._xc = xc
        self._domid = domid
        self._journal = journal
        self.count = 0

    def take(self) -> None:
        """Pause the domain."""
        with self._journal.counting(1):
            self._xc.pause(self._domid)
        self.count += 1

    def give_back(self) -> None:
        """Take back one pause, if there is one: others may have paused the domain too."""
        if self.count:
            with self._journal.counting(-1):
                self._xc.unpause(self._domid)
            self.count -= 1


def take_pauses_back(xc: Xc, info: DomainInfo, journal: Journal) -> int:
    """Take back the pauses of a dead process, which may not have lived to take the last one.

    Returns:
        How many there were.
    """
    taken_back = 0
    for _ in range(journal.entries.pauses):
        with journal.counting(-1):
            if domain_info(xc, info.domid, named=False).paused:
                xc.unpause(info.domid)
                taken_back += 1
    return taken_back
