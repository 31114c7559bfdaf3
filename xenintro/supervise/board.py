"""Memory that the worker writes and the supervisor reads, and that stays when the worker is killed."""

from __future__ import annotations

import mmap
import struct
from time import monotonic_ns

from xenintro.capture.pending import Pending

_NOTHING = 0

#: The worker has begun to change the domain, or to give it back: the domain may be paused.
CHANGING = 1
#: Traps are on, and the deadline thread beats.
WATCHING = 2

_FIELDS = ("beat", "turn", "phase", "since", "domid", "port", "tag", "worker", "finishing")
_U64 = struct.Struct("=Q")
_TURN = 8 * _FIELDS.index("turn")


class Board:
    """One shared page of 64-bit numbers. Times are CLOCK_MONOTONIC nanoseconds.

    Attributes:
        memory: the page; its first eight bytes are for the deadline thread's beat.
        pending: what the worker has not recorded yet.
    """

    def __init__(self) -> None:
        self.pending = Pending()
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)

    def read(self, field: str) -> int:
        """The value of a field.

        ``beat`` when the deadline thread looked last, ``turn`` when the loop turned last, ``phase`` and
        ``since`` what the worker does and from when on, ``domid`` to what, ``port`` and ``tag`` of its ring
        (0: none yet), ``worker`` its process, ``finishing`` that it works on with nothing to give back.
        """
        value: int = _U64.unpack_from(self.memory, 8 * _FIELDS.index(field))[0]
        return value

    def write(self, **values: int) -> None:
        """Set fields, in this order."""
        for field, value in values.items():
            _U64.pack_into(self.memory, 8 * _FIELDS.index(field), value)

    def enter(self, phase: int) -> None:
        """Set what the worker does from now on."""
        now = monotonic_ns()
        self.write(beat=now, turn=now, since=now, phase=phase)

    def turn(self) -> None:
        """The loop has come round: ``turn`` is now. Between any two events: it must cost little."""
        _U64.pack_into(self.memory, _TURN, monotonic_ns())

    @property
    def attached(self) -> bool:
        """Whether there is something to give back."""
        return self.read("phase") != _NOTHING

    def leave(self) -> None:
        """The domain is as it was."""
        self.write(phase=_NOTHING, port=0, tag=0)
