"""When a worker counts as lost: what it writes on the board has become too old."""

from __future__ import annotations

from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

from xenintro.supervise.board import CHANGING

if TYPE_CHECKING:
    from xenintro.supervise.board import Board

#: A worker whose deadline thread has not beaten for so many seconds is stopped: nobody answers the guest.
_STOPPED = 2.0
#: Attaching and giving back take milliseconds, page by page some seconds; the guest may be paused meanwhile.
_CHANGING = 30.0
#: A loop that has not come round for so long never will: the guest crawls from deadline to deadline.
_STUCK = 60.0
#: How long the worker has to end after it was told to, and after it was told again.
_ENDING, _ENDING_NOW = 10.0, 3.0
#: When it is told again by us: that interrupts a policy that does not come back.
_REMINDED = 2.0
#: Who looks has itself been stopped if so much lies between two looks: what is old then says nothing.
_ASLEEP = 1.0

_REASONS = {
    "beat": f"it was stopped for {_STOPPED:.0f} s (SIGSTOP?), and nobody answered the guest",
    "turn": f"its loop had not come round for {_STUCK:.0f} s: a policy, or a call that hangs",
    "since": f"what it did to the domain took more than {_CHANGING:.0f} s: a call to Xen that hangs",
}


class Limits:
    """What is asked of one worker.

    Args:
        board: what it writes.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._told: list[float] = []
        self._reminded = False
        self._looked_ns = self._awake_ns = monotonic_ns()

    def told(self) -> None:
        """It was told to end."""
        self._told.append(monotonic())

    def remind(self) -> bool:
        """Whether it is to be told once more; true once, and not while it finishes what takes its time."""
        late = bool(self._told) and monotonic() - self._told[0] > _REMINDED
        due = late and not self._reminded and not self._board.read("finishing")
        self._reminded |= due
        return due

    def age(self, field: str) -> float:
        """Seconds since the worker wrote a time, as far as it could have written one."""
        return (monotonic_ns() - max(self._board.read(field), self._awake_ns)) / 1e9

    def broken(self) -> str:
        """Why the worker must be killed; empty if it lives."""
        now_ns = monotonic_ns()
        if now_ns - self._looked_ns > _ASLEEP * 1e9:
            self._awake_ns = now_ns
        self._looked_ns = now_ns
        if not self._board.attached:
            return ""
        if self._told and monotonic() > self._must_have_ended():
            return "it did not end when it was told to"
        changing = self._board.read("phase") == CHANGING
        limits = {"since": _CHANGING} if changing else {"beat": _STOPPED, "turn": _STUCK}
        return next((_REASONS[field] for field, most in limits.items() if self.age(field) > most), "")

    def _must_have_ended(self) -> float:
        ends = [self._told[0] + _ENDING]
        if len(self._told) > 1:
            ends.append(self._told[1] + _ENDING_NOW)
        return min(ends)
