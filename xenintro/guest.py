"""What a policy may ask about the guest that it decides for."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from xenintro.errors import GuestReadError

#: Bytes that one read may give: a vCPU waits meanwhile.
MAX_READ = 1 << 16


class GuestRead(NamedTuple):
    """Guest memory that a policy read.

    ``at_ns`` is the `Guest.now_ns` of the event it was read for, ``gpa`` the guest physical address.
    """

    at_ns: int
    gpa: int
    data: bytes


class Memory(Protocol):
    """Where guest memory is read: the live guest, or what a capture has of it."""

    def begin(self, now_ns: int) -> None:
        """Another event is decided about: the guest has run meanwhile."""

    def read(self, gpa: int, size: int) -> bytes:
        """Exactly ``size`` bytes from a guest physical address on.

        Raises:
            GuestReadError: they cannot be had.
        """


class Guest:
    """The watched domain.

    Attributes:
        domid: its number while it is watched.
        uuid: as in its configuration.
        name: None where unknown.
        nr_vcpus: their ids are below this.
        now_ns: when the request was taken that is decided about, in nanoseconds since the epoch.
        offset_ns: what makes that of the loop's time.
        reads: every read since somebody made it a list: who records it takes them out. None: nobody does.
    """

    def __init__(
        self,
        domid: int,
        uuid: str,
        name: str | None,
        nr_vcpus: int,
        memory: Memory | None = None,
        *,
        offset_ns: int = 0,
    ) -> None:
        self.domid = domid
        self.uuid = uuid
        self.name = name
        self.nr_vcpus = nr_vcpus
        self.offset_ns = offset_ns
        self.now_ns = 0
        self.reads: list[GuestRead] | None = None
        self._memory = memory

    def begin(self, taken_ns: int) -> None:
        """The next event is decided about, taken at this time of the loop. Not for policies."""
        self.now_ns = now_ns = taken_ns + self.offset_ns
        if self._memory is not None:
            self._memory.begin(now_ns)

    def read(self, gpa: int, size: int) -> bytes:
        """Guest memory at a guest physical address.

        Live it is what the guest has there now, its other vCPUs running; in a replay what was read then.

        Raises:
            GuestReadError: no memory there, more than 64 KiB, or, in a replay, not recorded.
        """
        if not 0 < size <= MAX_READ or gpa < 0:
            raise GuestReadError(
                f"cannot read {size} bytes at {gpa:#x}", why=f"a read has 1 to {MAX_READ} bytes"
            )
        if self._memory is None:
            raise GuestReadError(
                f"cannot read guest memory at {gpa:#x}", why="there is no guest: only its events are here"
            )
        data = self._memory.read(gpa, size)
        if self.reads is not None:
            self.reads.append(GuestRead(self.now_ns, gpa, data))
        return data
