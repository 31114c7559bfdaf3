"""What was answered and is not in the capture yet: kept where the death of its process leaves it.

A capture is written after the answers, so a process that is killed in between would take with it what it has
just answered. The ring notes every answer, the deadline thread's too, in this memory before Xen sees it
(struct xi_record, xen/ring.h). When the process is dead its supervisor writes what is missing: `recover`.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, NamedTuple

from xenintro.abi import RING_INDICES, SLOT0, Interface, interface
from xenintro.capture.blocks import INBOUND, OUTBOUND, Packets
from xenintro.capture.records import recovered
from xenintro.codec import acknowledge, decode, encode
from xenintro.response import ALLOWED, PLAIN, allow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.capture.writer import CaptureWriter

#: struct xi_record: the counters, then entries of the two times, a request and its response.
_COUNTERS, _ENTRY, _ENTRIES = struct.Struct("=IIII"), struct.Struct("=QQ512s512s"), 1024
_MASK = 0xFFFFFFFF

#: Which of the two places is valid; a place; the text, which does not change while one is valid that has it.
_PLACES_AT, _TEXT_AT, _LONGEST_TEXT = 8, 256, 3 * mmap.PAGESIZE - 256
_RECORD_AT = 3 * mmap.PAGESIZE


class _Place(NamedTuple):
    """Where what comes next belongs.

    Attributes:
        size: bytes of the capture.
        next_id: packet id of the next request.
        offset_ns: to the time of day.
        text: bytes of the text that names layout and file; 0: there is no capture.
        recorded: answers that are in a capture, as the record counts them.
    """

    size: int = 0
    next_id: int = 0
    offset_ns: int = 0
    text: int = 0
    recorded: int = 0


_PLACE = struct.Struct("=QQqQQ")


class Recovered(NamedTuple):
    """What was written for a dead process.

    Attributes:
        path: of the capture.
        answered: requests that it had answered.
        unanswered: requests on its ring that it had not.
        lost: answers that are nowhere: it had not come round to record them for too long.
    """

    path: Path
    answered: int
    unanswered: int
    lost: int


class Pending:
    """Shared memory: make it before the processes fork. One records, the other recovers when that is dead."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _RECORD_AT + _COUNTERS.size + _ENTRIES * _ENTRY.size)
        self._followed = False

    @property
    def record(self) -> memoryview:
        """Where the ring notes its answers (`xenintro.xen.ring.Ring.record`)."""
        return memoryview(self._memory)[_RECORD_AT:]

    def follow(self, writer: CaptureWriter | None) -> None:
        """What is not recorded yet belongs to this capture, which has just been begun; to none."""
        self._set(self._place()._replace(text=0))
        if writer is None:
            return
        info = writer.info
        text = f"{info.abi}\0{info.arch}\0{writer.path.absolute()}".encode(errors="surrogateescape")
        text = text if len(text) <= _LONGEST_TEXT else b""
        self._memory[_TEXT_AT : _TEXT_AT + len(text)] = text
        offset_ns = info.started_ns - info.monotonic_ns
        # What was answered since the capture before this one is pending; nothing was if there is none.
        recorded = self._place().recorded if self._followed else self._told()
        self._followed = True
        self._set(_Place(writer.size, writer.next_id, offset_ns, len(text), recorded))

    def written(self, size: int, next_id: int) -> None:
        """Everything that the session was told of is in the capture, which has so many bytes now."""
        self._set(self._place()._replace(size=size, next_id=next_id, recorded=self._told()))

    def recover(self, page: bytes | None = None) -> Recovered | None:
        """Write what the dead process has not written, if there is anything, behind what it has.

        What it had written in part is replaced.

        Args:
            page: its ring page as it left it: what Xen was shown, and what was not answered.

        Raises:
            OSError: it cannot be written.
        """
        place = self._place()
        if not place.text:
            return None
        abi, arch, path = self._memory[_TEXT_AT : _TEXT_AT + place.text].split(b"\0")
        layout = interface(abi.decode(), arch.decode())
        put, published, _, base = _COUNTERS.unpack_from(self._memory, _RECORD_AT)
        left: list[bytes] = []
        if page is not None:
            published = RING_INDICES.unpack_from(page)[2] + base & _MASK
            left = list(self._unanswered(page, layout, put, base))
        count = published - place.recorded & _MASK
        if count >> 31:  # nothing new: the page was another's
            count = 0
        lost = max(0, count - _ENTRIES)
        packet, data, packet_id = Packets(0, layout.slot_size).block, b"", place.next_id
        for number in range(place.recorded + lost, place.recorded + count):
            taken_ns, answered_ns, request, response = self._entry(number, layout)
            vcpu_id, said = decode(request, layout).vcpu_id, recovered(_name(request, response, layout))
            data += packet(request, taken_ns + place.offset_ns, INBOUND, packet_id, vcpu_id)
            data += packet(response, answered_ns + place.offset_ns, OUTBOUND, packet_id, vcpu_id, said)
            packet_id += 1
        now_ns = monotonic_ns() + place.offset_ns
        for request in left:
            data += packet(request, now_ns, INBOUND, packet_id, decode(request, layout).vcpu_id)
            packet_id += 1
        if not data:
            return None
        _replace_end(path, place.size, data)
        self._set(_Place())
        return Recovered(Path(os.fsdecode(path)), count - lost, len(left), lost)

    def _told(self) -> int:
        told: int = _COUNTERS.unpack_from(self._memory, _RECORD_AT)[2]
        return told

    def _unanswered(self, page: bytes, layout: Interface, put: int, base: int) -> Iterator[bytes]:
        """Requests that Xen was shown no response to; the response that was put for some is in their slot."""
        req_prod, _, rsp_prod, _ = RING_INDICES.unpack_from(page)
        count = req_prod - rsp_prod & _MASK
        if count > layout.nr_slots:
            return
        for index in range(rsp_prod, rsp_prod + count):
            number = index + base & _MASK
            if 0 < (put - number & _MASK) <= layout.nr_slots:
                yield self._entry(number, layout)[2]
            else:
                start = SLOT0 + (index & layout.nr_slots - 1) * layout.slot_size
                yield page[start : start + layout.slot_size]

    def _entry(self, number: int, layout: Interface) -> tuple[int, int, bytes, bytes]:
        at = _RECORD_AT + _COUNTERS.size + number % _ENTRIES * _ENTRY.size
        taken_ns, answered_ns, request, response = _ENTRY.unpack_from(self._memory, at)
        return taken_ns, answered_ns, request[: layout.slot_size], response[: layout.slot_size]

    def _place(self) -> _Place:
        return _Place(*_PLACE.unpack_from(self._memory, _PLACES_AT + self._memory[0] * _PLACE.size))

    def _set(self, place: _Place) -> None:
        """At once: who is killed in between leaves the one before."""
        other = 1 - self._memory[0]
        _PLACE.pack_into(self._memory, _PLACES_AT + other * _PLACE.size, *place)
        self._memory[0] = other


def _name(request: bytes, response: bytes, layout: Interface) -> str:
    """What an answer is called of which only the bytes are left."""
    event = decode(request, layout)
    if response == encode(event, allow(event)):
        return ALLOWED.name
    if response == acknowledge(request, layout):
        return PLAIN.name
    field = layout.header["flags"]
    flags = int.from_bytes(response[field.offset : field.offset + field.size], "little")
    return "+".join(name for name in layout.names_of(flags) if name != "vcpu_paused") or PLAIN.name


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
