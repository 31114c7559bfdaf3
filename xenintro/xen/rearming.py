"""Other traps for a domain that is watched already, without a moment in which none of them is on."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

import msgspec

from xenintro.errors import XenCallError, XenintroError
from xenintro.xen.arming import arm, disarm
from xenintro.xen.undo import change_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.traps import Trap
    from xenintro.xen.attachment import Attachment
    from xenintro.xen.journal import Journal
    from xenintro.xen.undo import Change
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)

_UNPAUSE_TRIES = 3


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
        self._switched: list[tuple[Callable[[Xc, int, Trap], None], Trap]] = []

    def run(self, attachment: Attachment, journal: Journal) -> bool:
        """Do it while the domain is paused: nothing that happens in the guest falls between the two.

        Returns:
            False if the domain is still paused: the new traps are on, but only giving it back makes it run.

        Raises:
            HalfArmedError: Xen refused, and some of the old traps are off, or the domain is still paused.
            XenintroError: Xen refused; the old traps are on again.
        """
        if not self._added and not self._removed:
            return True
        journal.record(self.changes)
        attachment.pause()
        try:
            self._exchange()
        except XenintroError as error:
            failures = [*self._back(), *_unpaused(attachment)]
            if failures:
                raise HalfArmedError(error, failures) from error
            raise
        except BaseException:
            self._back()
            _unpaused(attachment)
            raise
        _log.info(
            "traps off: %s; on: %s",
            ", ".join(trap.text for trap in self._removed) or "none",
            ", ".join(trap.text for trap in self._added) or "none",
        )
        return not _unpaused(attachment)

    def _exchange(self) -> None:
        for switch, traps in ((disarm, self._removed), (arm, self._added)):
            for trap in traps:
                # Noted before: a call that fails midway through a range of pages has changed some of them.
                self._switched.append((switch, trap))
                switch(self._xc, self._domid, trap)

    def _back(self) -> list[XenintroError]:
        """What was switched, and what was tried, as it was before; returns what failed."""
        failures = []
        while self._switched:
            switch, trap = self._switched.pop()
            try:
                if switch is arm:
                    disarm(self._xc, self._domid, trap)
                else:
                    _arm_again(self._xc, self._domid, trap)
            except XenintroError as error:
                _log.warning("%s is not as it was: %s", trap.text, error)
                failures.append(error)
        return failures


class HalfArmedError(XenintroError):
    """Neither the old traps nor the new ones are on: only a new attachment makes that whole."""

    def __init__(self, error: XenintroError, failures: list[XenintroError]) -> None:
        super().__init__(error.what, why=error.why, hint=error.hint)
        self.failures = failures


def _arm_again(xc: Xc, domid: int, trap: Trap) -> None:
    try:
        arm(xc, domid, trap)
    except XenCallError as error:
        if error.errno != errno.EEXIST:  # switching it off failed: it is on
            raise


def _unpaused(attachment: Attachment) -> list[XenintroError]:
    """A domain that stays paused is worse than a call too many; returns why it is still paused."""
    for _ in range(_UNPAUSE_TRIES):
        try:
            attachment.unpause()
        except XenintroError as error:
            failed = error
        else:
            return []
    _log.warning("still paused: %s", failed)
    return [failed]


def _meaning(trap: Trap) -> Trap:
    """The trap, however it was written."""
    return msgspec.structs.replace(trap, text="")
