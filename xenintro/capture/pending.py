"""What was taken from the ring and is not in the capture yet: kept where the death of its process leaves it.

A capture is written after the answers, so a process that is killed in between would take with it what it has
just answered. Its supervisor writes that instead, with `Pending.recover`.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING

from xenintro.abi import interface
from xenintro.capture.blocks import INBOUND, OUTBOUND, Packets
from xenintro.capture.records import recovered
from xenintro.codec import decode

if TYPE_CHECKING:
    from xenintro.capture.writer import CaptureWriter

#: Requests that fit; a drain ends after 5 ms, before there are so many.
_MOST = 1024

#: Where they belong: the round that counts, bytes of the capture, packet id of the next request, offset to
#: the time of day, length of the text.
_PLACE, _PLACE_WRITTEN, _ROUND = struct.Struct("=QQQqQ"), struct.Struct("=QQQ"), struct.Struct("=Q")
_TEXT_AT, _LONGEST_TEXT = 64, 3 * mmap.PAGESIZE - 64
_ENTRIES_AT = 3 * mmap.PAGESIZE
#: No interface has bigger slots.
_BIGGEST_SLOT = 512
_NAME = 32


class Pending:
    """Shared memory: make it before the processes fork. One writes, the other recovers when that is dead.

    An entry counts if its round, which is written last, is the present one: a new round empties all at once.
    """

    def __init__(self) -> None:
        self._entry = _entry(_BIGGEST_SLOT)
        self._memory = mmap.mmap(-1, _ENTRIES_AT + _MOST * self._entry.size)
        self._round = 1
        self._at = _ENTRIES_AT
        self._end = _ENTRIES_AT
        self._names: dict[str, bytes] = {}
        self.follow(None)

    def follow(self, writer: CaptureWriter | None) -> None:
        """What is noted from now on belongs to this capture, which has just been begun; to none."""
        self._round += 1
        self._at = self._end = _ENTRIES_AT
        _PLACE.pack_into(self._memory, 0, self._round, 0, 0, 0, 0)
        if writer is None:
            return
        info = writer.info
        text = f"{info.abi}\0{info.arch}\0{writer.path.absolute()}".encode(errors="surrogateescape")
        if len(text) > _LONGEST_TEXT:
            return
        self._memory[_TEXT_AT : _TEXT_AT + len(text)] = text
        slot_size = interface(info.abi, info.arch).slot_size
        self._entry = _entry(slot_size)
        self._end = _ENTRIES_AT + _MOST * self._entry.size
        offset_ns = info.started_ns - info.monotonic_ns
        _PLACE.pack_into(self._memory, 0, self._round, writer.size, writer.next_id, offset_ns, len(text))

    def taken(self, raw: bytes, taken_ns: int) -> None:
        """Somebody is asked about a request; who crashes with it leaves it here."""
        if self._at < self._end:
            self._entry.pack_into(self._memory, self._at, raw, b"", b"", taken_ns, 0, self._round)

    def answering(self, raw: bytes, taken_ns: int, sent: bytes, name: str) -> None:
        """A request is about to be answered."""
        if self._at < self._end:
            known = self._names.get(name) or self._names.setdefault(name, name.encode()[:_NAME])
            self._entry.pack_into(
                self._memory, self._at, raw, sent, known, taken_ns, monotonic_ns(), self._round
            )
            self._at += self._entry.size

    def written(self, size: int, next_id: int) -> None:
        """Everything that was noted is in the capture, which has so many bytes now."""
        self._round += 1
        self._at = _ENTRIES_AT
        _PLACE_WRITTEN.pack_into(self._memory, 0, self._round, size, next_id)

    def recover(self) -> tuple[Path, int] | None:
        """Write what the dead process has not written; the capture, and how many requests, if there were any.

        What it had written in part is replaced.

        Raises:
            OSError: it cannot be written.
        """
        number, size, next_id, offset_ns, length = _PLACE.unpack_from(self._memory)
        if not length:
            return None
        abi, arch, path = self._memory[_TEXT_AT : _TEXT_AT + length].split(b"\0")
        layout = interface(abi.decode(), arch.decode())
        entry, packet = _entry(layout.slot_size), Packets(0, layout.slot_size).block
        data, count = b"", 0
        while count < _MOST:
            at = _ENTRIES_AT + count * entry.size
            raw, sent, name, taken_ns, answered_ns, counts_in = entry.unpack_from(self._memory, at)
            if counts_in != number:
                break
            vcpu_id, packet_id = decode(raw, layout).vcpu_id, next_id + count
            data += packet(raw, taken_ns + offset_ns, INBOUND, packet_id, vcpu_id)
            if answered_ns:
                said = recovered(name.rstrip(b"\0").decode(errors="replace"))
                data += packet(sent, answered_ns + offset_ns, OUTBOUND, packet_id, vcpu_id, said)
            count += 1
        if not count:
            return None
        _replace_end(path, size, data)
        _ROUND.pack_into(self._memory, 0, number + 1)
        return Path(os.fsdecode(path)), count


def _entry(slot_size: int) -> struct.Struct:
    """Request, response, its name; when it was taken, when answered (0: not yet); the round."""
    return struct.Struct(f"={slot_size}s{slot_size}s{_NAME}sQQQ")


def _replace_end(path: bytes, size: int, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)
