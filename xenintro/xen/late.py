"""What the deadline thread has answered: until it is shown, and until the stepping has learned of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xenintro.codec import decode
from xenintro.source import Missed

if TYPE_CHECKING:
    from xenintro.abi import Interface
    from xenintro.events import Event
    from xenintro.xen.guard import Guard
    from xenintro.xen.stepping import Stepping

_log = logging.getLogger(__name__)


class Late:
    """The late answers of one ring.

    Args:
        interface: of its slots.

    Attributes:
        told_at: requests taken when `told` was asked last, as the ring counts them.
    """

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._untold: list[Missed] = []
        self._unlearned: list[tuple[Event, bool]] = []
        self._lost = 0
        self.told_at = 0

    @property
    def unlearned(self) -> bool:
        """Whether something was collected that the stepping has not learned of."""
        return bool(self._unlearned)

    def collect(self, guard: Guard) -> None:
        """Take over what the thread has answered since the last time."""
        for slot in guard.missed():
            event = decode(slot.raw, self._interface)
            sent = guard.response(slot.raw)
            place = (slot.before - self.told_at, slot.taken)
            self._untold.append(Missed(event, sent, slot.since_ns, slot.answered_ns, *place))
            self._unlearned.append((event, slot.claimed))
        if guard.lost != self._lost:
            _log.warning("%d allowed events are not shown: too many waited", guard.lost - self._lost)
            self._lost = guard.lost

    def told(self) -> list[Missed]:
        """What was collected since the last time this was asked, oldest first."""
        untold, self._untold = self._untold, []
        return untold

    def learn(self, stepping: Stepping) -> None:
        """Let the stepping know: the thread may have ended a step, or answered instead.

        Raises:
            XenintroError: a page's permission could not be changed.
        """
        while self._unlearned:
            event, claimed = self._unlearned.pop(0)
            stepping.missed(event, claimed=claimed)
