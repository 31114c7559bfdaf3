"""What a report says of a capture, counted in one go and in constant memory."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from xenintro.capture.contents import Contents
from xenintro.export.busiest import Busiest, Counted
from xenintro.export.code import code_address
from xenintro.export.heat import Heat
from xenintro.export.strip import Strip
from xenintro.stats import Histogram

if TYPE_CHECKING:
    from xenintro.answered import Answered

#: The longest pauses that are told one by one.
_LONGEST = 10

#: Xen has fewer vCPUs in a guest; a slot that says more is damaged.
_MAX_VCPUS = 8192


class Instruction(Counted):
    """An instruction that caused events.

    Attributes:
        reasons: of which kinds.
        paused_ns: how long vCPUs waited for them, in all.
    """

    __slots__ = ("paused_ns", "reasons")

    def __init__(self) -> None:
        super().__init__()
        self.reasons: set[str] = set()
        self.paused_ns = 0


class Wait(NamedTuple):
    """One pause; waits are ordered by length, the earlier first."""

    pause_ns: int
    order: int
    answered: Answered


class Digest:
    """Counts requests.

    Attributes:
        contents: what `xenintro inspect` says too.
        heat, strip: events by page and time; by kind and time.
        instructions: those that caused the most events.
        pauses: all of them.
    """

    def __init__(self) -> None:
        self.contents = Contents()
        self.heat = Heat()
        self.strip = Strip()
        self.instructions = Busiest(Instruction)
        self.pauses = Histogram()
        self._vcpus = 1
        self._longest: list[Wait] = []

    def add(self, answered: Answered) -> None:
        """One request."""
        self.contents.count(answered)
        self.heat.add(answered)
        self.strip.add(answered)
        event = answered.event
        if self._vcpus <= event.vcpu_id < _MAX_VCPUS:
            self._vcpus = event.vcpu_id + 1
        pause = answered.pause_ns
        if pause is not None:
            pause = max(pause, 0)
            self.pauses.record(pause)
            wait = Wait(pause, -self.contents.events, answered)
            if len(self._longest) < _LONGEST:
                heapq.heappush(self._longest, wait)
            elif wait > self._longest[0]:
                heapq.heapreplace(self._longest, wait)
        address = code_address(event)
        if address is not None:
            instruction = self.instructions.count(address)
            instruction.reasons.add(event.reason)
            instruction.paused_ns += pause or 0

    def longest(self) -> list[Answered]:
        """The requests that waited longest."""
        return [wait.answered for wait in sorted(self._longest, reverse=True)]

    def vcpus(self, known: int | None) -> int:
        """How many the domain has: as the capture says, else as many as were seen."""
        return max(known or 0, self._vcpus)
