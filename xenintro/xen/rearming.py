"""Other traps for a domain that is watched already, without a moment in which none of them is on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from xenintro.errors import XenintroError
from xenintro.xen.arming import arm, disarm
from xenintro.xen.undo import change_of

if TYPE_CHECKING:
    from xenintro.traps import Trap
    from xenintro.xen.attachment import Attachment
    from xenintro.xen.journal import Journal
    from xenintro.xen.undo import Change
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)


class Exchange:
    """The step from some traps to others.

    Args:
        xc: an open libxc.
        domid: the domain.
        old: traps that are on.
        new: traps to be on.

    Attributes:
        changes: what arming the added ones changes.
    """

    def __init__(self, xc: Xc, domid: int, old: tuple[Trap, ...], new: tuple[Trap, ...]) -> None:
        self._xc = xc
        self._domid = domid
        before, after = {_meaning(trap) for trap in old}, {_meaning(trap) for trap in new}
        self._removed = [trap for trap in old if _meaning(trap) not in after]
        self._added = [trap for trap in new if _meaning(trap) not in before]
        self.changes: list[Change] = [change for trap in self._added if (change := change_of(trap))]

    def run(self, attachment: Attachment, journal: Journal) -> None:
        """Do it while the domain is paused: nothing that happens in the guest falls between the two.

        Raises:
            XenintroError: Xen refused; the old traps are on again.
        """
        if not self._added and not self._removed:
            return
        journal.record(self.changes)
        attachment.pause()
        try:
            for trap in self._removed:
                disarm(self._xc, self._domid, trap)
            for trap in self._added:
                arm(self._xc, self._domid, trap)
        except BaseException:
            self._back()
            raise
        finally:
            attachment.unpause()
        _log.info(
            "traps off: %s; on: %s",
            ", ".join(trap.text for trap in self._removed) or "none",
            ", ".join(trap.text for trap in self._added) or "none",
        )

    def _back(self) -> None:
        for switch, traps in ((disarm, self._added), (arm, self._removed)):
            for trap in traps:
                try:
                    switch(self._xc, self._domid, trap)
                except XenintroError as error:  # one that was not switched yet
                    _log.debug("back: %s: %s", trap.text, error)


def _meaning(trap: Trap) -> Trap:
    """The trap, however it was written."""
    return msgspec.structs.replace(trap, text="")
