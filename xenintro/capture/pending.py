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

_COUNT = struct.Struct("=Q")
#: Where they belong: bytes of the capture, next packet id, offset to the time of day, length of the text.
_PLACE, _PLACE_AT = struct.Struct("=QQqQ"), 8
_TEXT_AT, _LONGEST_TEXT = 64, 3 * mmap.PAGESIZE - 64
_ENTRIES_AT = 3 * mmap.PAGESIZE
#: No interface has bigger slots.
_BIGGEST_SLOT = 512
_NAME = 32


class Pending:
    """Shared memory: make it before the processes fork. One writes, the other recovers when that is dead."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ENTRIES_AT + _MOST * _layouts(_BIGGEST_SLOT)[2])
        self._count = self._at = 0
        self._follow(_BIGGEST_SLOT)

    def follow(self, writer: CaptureWriter | None) -> None:
        """What is noted from now on belongs to this capture, which has just been begun; to none."""
        self._store(0)
        if writer is None:
            _PLACE.pack_into(self._memory, _PLACE_AT, 0, 0, 0, 0)
            return
        info = writer.info
        text = f"{info.abi}\0{info.arch}\0{writer.path.absolute()}".encode(errors="surrogateescape")
        text = text if len(text) <= _LONGEST_TEXT else b""
        self._memory[_TEXT_AT : _TEXT_AT + len(text)] = text
        place = (writer.size, writer.next_id, info.started_ns - info.monotonic_ns, len(text))
        _PLACE.pack_into(self._memory, _PLACE_AT, *place)
        self._follow(interface(info.abi, info.arch).slot_size)

    def taken(self, raw: bytes, taken_ns: int) -> None:
        """A request was taken; before anybody is asked about it."""
        count = self._count
        self._at = 0
        if count < _MOST:
            self._at = _ENTRIES_AT + count * self._size
            self._pack_request(self._memory, self._at, taken_ns, 0, raw)
            self._store(count + 1)

    def answering(self, sent: bytes, name: str) -> None:
        """The request that was taken last is about to be answered so."""
        if at := self._at:
            self._pack_response(self._memory, at + self._response_at, name.encode()[:_NAME], sent)
            _COUNT.pack_into(self._memory, at + 8, monotonic_ns())

    def written(self, size: int, next_id: int) -> None:
        """Everything that was noted is in the capture, which has so many bytes now."""
        self._store(0)
        _COUNT.pack_into(self._memory, _PLACE_AT, size)
        _COUNT.pack_into(self._memory, _PLACE_AT + 8, next_id)

    def recover(self) -> tuple[Path, int] | None:
        """Write what the dead process has not written; the capture, and how many requests, if there were any.

        What it had written in part is replaced.

        Raises:
            OSError: it cannot be written.
        """
        count = _COUNT.unpack_from(self._memory)[0]
        size, packet_id, offset_ns, length = _PLACE.unpack_from(self._memory, _PLACE_AT)
        if not count or not length:
            return None
        abi, arch, path = self._memory[_TEXT_AT : _TEXT_AT + length].split(b"\0")
        layout = interface(abi.decode(), arch.decode())
        self._follow(layout.slot_size)
        packet, data = Packets(0, layout.slot_size).block, b""
        for number in range(min(count, _MOST)):
            at = _ENTRIES_AT + number * self._size
            taken_ns, answered_ns, raw = self._request.unpack_from(self._memory, at)
            vcpu_id = decode(raw, layout).vcpu_id
            data += packet(raw, taken_ns + offset_ns, INBOUND, packet_id + number, vcpu_id)
            if answered_ns:
                name, sent = self._response.unpack_from(self._memory, at + self._response_at)
                said = recovered(name.rstrip(b"\0").decode())
                time_ns = answered_ns + offset_ns
                data += packet(sent, time_ns, OUTBOUND, packet_id + number, vcpu_id, said)
        _replace_end(path, size, data)
        self._store(0)
        return Path(os.fsdecode(path)), count

    def _follow(self, slot_size: int) -> None:
        self._request, self._response, self._size = _layouts(slot_size)
        self._response_at = self._request.size
        self._pack_request, self._pack_response = self._request.pack_into, self._response.pack_into

    def _store(self, count: int) -> None:
        self._count = count
        _COUNT.pack_into(self._memory, 0, count)


def _layouts(slot_size: int) -> tuple[struct.Struct, struct.Struct, int]:
    """A request with the times it was taken and answered at, its answer with the name, and both in bytes."""
    request, response = struct.Struct(f"=QQ{slot_size}s"), struct.Struct(f"={_NAME}s{slot_size}s")
    return request, response, (request.size + response.size + 7) // 8 * 8


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
