"""Reads a capture: what was answered, in the order of the requests, in constant memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from xenintro.answered import Answered
from xenintro.capture import blocks
from xenintro.capture.blockreader import BlockReader
from xenintro.capture.blocks import DIRECTION, OUTBOUND
from xenintro.capture.records import (
    MEMORY,
    PAGES,
    SLOTS,
    UNANSWERED,
    CapturedPage,
    CaptureTotals,
    remark,
)
from xenintro.capture.section import MOST_NS, Section
from xenintro.capture.stream import Stream
from xenintro.errors import DamagedInputError
from xenintro.guest import GuestRead
from xenintro.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from xenintro.abi import Interface
    from xenintro.capture.blocks import Block
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.section import Described
    from xenintro.events import Event

#: Requests that wait for their responses, and bytes of memory that was read for them; then they are given up.
_MOST_OPEN, _MOST_READ = 4096, 64 << 20

#: A packet id that is further on than this is damaged, or another program's.
_MOST_MISSING = 1 << 24

#: Bytes of a packet block before its packet, and of all that is no packet in it.
_PACKET_HEAD = 20


class _Open:
    """A request whose response may still come."""

    __slots__ = ("answered", "done", "event", "key", "reads", "taken_ns")

    def __init__(self, event: Event, taken_ns: int) -> None:
        self.event = event
        self.taken_ns = taken_ns
        self.key: tuple[int, int] | None = None
        self.reads: list[GuestRead] = []
        self.answered: Answered | None = None
        self.done = False


class Capture:
    """A capture to read once: plain, gzip or zstd, as its first bytes say. A context manager, and iterable.

    Iterating gives an `Answered` per request, with times in nanoseconds since the epoch; its rule is a
    `RecordedRule`. A request whose response is not in the capture is given with ``answer="unanswered"`` and
    an empty response. What cannot be read is passed over, and told in `damage`: it raises nothing.

    Args:
        path: of the file, ``-`` for stdin.

    Attributes:
        info: what the capture says of itself.
        interface: the layout of its slots.
        reads: guest memory that was read to decide on the request that was given last.
        missing: requests that were recorded and are not there, by the packet ids that were read.
        totals: what the writer counted; None before the end, or if it did not come to closing the file.

    Raises:
        UsageError: it cannot be opened.
        NotSupportedError: compressed with zstd, and no module for that.
        DamagedInputError: it is no capture, or its header cannot be read.
    """

    info: CaptureInfo
    interface: Interface

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._stream = Stream(self._path)
        self._blocks = BlockReader(self._stream)
        self._section = Section()
        self._open: deque[_Open] = deque()
        self._by_id: dict[tuple[int, int], _Open] = {}
        self._read_bytes = 0
        self._next_id: dict[int, int] = {}
        self.missing = 0
        self.reads: tuple[GuestRead, ...] = ()
        self.totals: CaptureTotals | None = None
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    @property
    def size(self) -> int | None:
        """Bytes of the file; None if it is a pipe."""
        return self._stream.size

    @property
    def compression(self) -> str | None:
        """``gzip``, ``zstd``, or None if it is not compressed."""
        return self._stream.compression

    @property
    def position(self) -> int:
        """Bytes of the file that were read so far."""
        return self._stream.position

    @property
    def damage(self) -> DamagedInputError | None:
        """What could not be read so far."""
        places, first = self._blocks.damages, self._blocks.first_damage
        if self._stream.damage:
            first = self._stream.damage
        if not first:
            return None
        more = f", and {places - 1} more places" if places > 1 else ""
        return DamagedInputError(
            f"{self._path} is damaged", why=f"{first}{more}", hint="what could be read was read"
        )

    def __iter__(self) -> Iterator[Answered]:
        return (record for record in self.records() if isinstance(record, Answered))

    @property
    def pages(self) -> Iterator[CapturedPage]:
        """The ring pages, instead of what iterating gives."""
        return (record for record in self.records() if isinstance(record, CapturedPage))

    def records(self) -> Iterator[Answered | CapturedPage]:
        """Requests and ring pages, as they come."""
        for block in self._read():
            if block.kind == blocks.ENHANCED_PACKET:
                try:
                    page = self._packet(block)
                except (ValueError, DamagedInputError) as error:
                    self._blocks.damaged(block.at, str(error))
                    continue
                if page is not None:
                    yield page
                if self._open and (self._open[0].done or len(self._open) > _MOST_OPEN or self._read_bytes):
                    yield from self._ready()
            elif block.kind == blocks.SECTION_HEADER:
                yield from self._ready(everything=True)
        yield from self._ready(everything=True)

    # Blocks

    def _begin(self) -> None:
        """Read up to the first packet."""
        self._ahead: list[Block] = []
        self._source = iter(self._blocks)
        if not self._blocks.begins().startswith(b"\x0a\x0d\x0d\x0a"):
            raise self._no_capture("it does not begin as pcapng does")
        for block in self._known():
            if block.kind == blocks.ENHANCED_PACKET:
                self._ahead.append(block)
                break
        layouts = [one.layout for one in self._section.interfaces if one.layout is not None]
        if self._section.info is None or not layouts:
            raise self._no_capture(
                self._blocks.first_damage or "no interface in it has slots of a known layout"
            )
        self.info, self.interface = self._section.info, layouts[0]

    def _no_capture(self, why: str) -> DamagedInputError:
        return DamagedInputError(f"{self._path} is no capture", why=why, hint="xenintro record writes them")

    def _read(self) -> Iterator[Block]:
        while self._ahead:
            yield self._ahead.pop()
        yield from self._known()

    def _known(self) -> Iterator[Block]:
        """The blocks, after what they say was taken note of; others' are passed over."""
        for block in self._source:
            try:
                self._note(block)
            except ValueError as error:
                self._blocks.damaged(block.at, str(error))
            else:
                yield block

    def _note(self, block: Block) -> None:
        if block.kind == blocks.SECTION_HEADER:
            if len(block.body) < 16:
                raise ValueError("a section header that is too short")
            self._section = Section(block)
            self._blocks.interfaces = 0
            self._by_id.clear()
            self._next_id.clear()
        elif block.kind == blocks.INTERFACE_DESCRIPTION:
            self._section.describe(block)
            self._blocks.interfaces += 1
        elif block.kind == blocks.INTERFACE_STATISTICS:
            self._count(block)

    def _count(self, block: Block) -> None:
        """The totals; a capture that was put together of several has several."""
        said = dict(block.options(12))
        u64, time = block.order.u64, block.order.time
        wanted = (blocks.ISB_STARTTIME, blocks.ISB_ENDTIME, blocks.ISB_IFRECV)
        if any(len(said.get(code, b"")) != 8 for code in wanted):
            return
        started, ended = (high << 32 | low for high, low in (time(said[code]) for code in wanted[:2]))
        if max(started, ended) > MOST_NS:
            raise ValueError("totals of a time that cannot be")
        lost = said.get(blocks.ISB_IFDROP, bytes(8))
        totals = CaptureTotals(
            started, ended, u64(said[blocks.ISB_IFRECV])[0], u64(lost)[0] if len(lost) == 8 else 0
        )
        if self.totals is not None:
            before = self.totals
            totals = CaptureTotals(
                min(before.started_ns, totals.started_ns),
                max(before.ended_ns, totals.ended_ns),
                before.requests + totals.requests,
                before.lost + totals.lost,
            )
        self.totals = totals

    # Packets

    def _packet(self, block: Block) -> CapturedPage | None:
        """Take in a packet.

        Raises:
            ValueError, DamagedInputError: it makes no sense.
        """
        body = block.body
        plain = self._section.plain
        if plain is not None and len(body) == plain.size:  # what nearly every packet is
            number, high, low, size, _, data, *options, packet_id, code, length, _, end = plain.unpack(body)
            described = self._section.interfaces[self._section.first]
            if (
                number == self._section.first
                and size == len(data)
                and (options[0], options[1], options[3], options[4], code, length) == blocks.PLAIN_OPTIONS
                and end == blocks.OPT_END
            ):
                time_ns = described.time_ns(high << 32 | low)
                if options[2] & DIRECTION == OUTBOUND:
                    self._response(number, packet_id, data, time_ns, ())
                else:
                    self._request(number, packet_id, described, data, time_ns)
                return None
        return self._any_packet(block)

    def _any_packet(self, block: Block) -> CapturedPage | None:
        """What `_packet` does, for whatever there is."""
        body = block.body
        if len(body) < _PACKET_HEAD:
            raise ValueError("a packet that is too short")
        number, high, low, size, _ = block.order.packet(body)
        if size > len(body) - _PACKET_HEAD:
            raise ValueError("a packet that is longer than its block")
        if number >= len(self._section.interfaces):
            raise ValueError(f"a packet of interface {number}, which there is not")
        described = self._section.interfaces[number]
        if described.link_type not in (SLOTS, PAGES, MEMORY):
            return None
        data = body[_PACKET_HEAD : _PACKET_HEAD + size]
        time_ns = described.time_ns(high << 32 | low)
        if described.link_type == PAGES:
            if size != PAGE_SIZE:
                raise ValueError(f"a ring page of {size} bytes")
            return CapturedPage(time_ns, data)
        outbound, packet_id, texts = _said(block, _PACKET_HEAD + size + -size % 4)
        if described.link_type == MEMORY:
            self._memory(packet_id, data)
        elif outbound:
            self._response(number, packet_id, data, time_ns, texts)
        else:
            self._request(number, packet_id, described, data, time_ns)
        return None

    def _request(
        self, number: int, packet_id: int | None, described: Described, data: bytes, time_ns: int
    ) -> None:
        if described.decode is None:
            raise ValueError("a slot of no known layout")
        request = _Open(described.decode(data), time_ns)
        self._open.append(request)
        if packet_id is None:
            request.done = True
            return
        self._count_missing(number, packet_id)
        key = request.key = number, packet_id
        before = self._by_id.get(key)
        if before is not None:
            before.done = True
        self._by_id[key] = request

    def _count_missing(self, number: int, packet_id: int) -> None:
        """Packet ids are counted from one request to the next; not all of them come in their order."""
        expected = self._next_id.setdefault(number, packet_id)
        ahead = packet_id - expected
        if -_MOST_OPEN <= ahead < 0:
            self.missing = max(0, self.missing - 1)
        elif ahead <= _MOST_MISSING:
            self.missing += max(0, ahead)
            self._next_id[number] = packet_id + 1

    def _response(
        self, number: int, packet_id: int | None, data: bytes, time_ns: int, texts: Sequence[str]
    ) -> None:
        """Add it to its request; one whose request is not there (lost to damage, given up) is dropped."""
        request = self._by_id.pop((number, packet_id), None) if packet_id is not None else None
        if request is None:
            return
        event = request.event
        if len(data) != event.interface.slot_size:
            raise ValueError(f"a response of {len(data)} bytes")
        if time_ns < request.taken_ns:
            raise ValueError("a response before its request")
        answer, rule, would, late, asked, recovered = remark(texts)
        request.answered = Answered(
            *(event, answer, data, request.taken_ns, time_ns), *(rule, would, late, asked, recovered)
        )
        request.done = True

    def _memory(self, packet_id: int | None, data: bytes) -> None:
        if len(data) < 8:
            raise ValueError("guest memory without its address")
        request = next((one for key, one in self._by_id.items() if key[1] == packet_id), None)
        if request is not None:
            gpa = int.from_bytes(data[:8], "little")
            request.reads.append(GuestRead(request.taken_ns, gpa, data[8:]))
            self._read_bytes += len(data)

    def _ready(self, *, everything: bool = False) -> Iterator[Answered]:
        """What has its response, or is given up; as long as nothing older waits."""
        waiting = self._open
        while waiting and (
            waiting[0].done or everything or len(waiting) > _MOST_OPEN or self._read_bytes > _MOST_READ
        ):
            request = waiting.popleft()
            if not request.done and request.key is not None:
                self._by_id.pop(request.key, None)
            self.reads = tuple(request.reads)
            if request.reads:
                self._read_bytes -= sum(8 + len(read.data) for read in request.reads)
            yield request.answered or Answered(
                request.event, UNANSWERED, b"", request.taken_ns, request.taken_ns
            )


def _said(block: Block, start: int) -> tuple[bool, int | None, list[str]]:
    """Whether a packet goes out, its id, its comments."""
    outbound, packet_id, texts = False, None, []
    for code, value in block.options(start):
        if code == blocks.EPB_PACKETID and len(value) == 8:
            packet_id = block.order.u64(value)[0]
        elif code == blocks.EPB_FLAGS and len(value) == 4:
            outbound = block.order.u32(value)[0] & DIRECTION == OUTBOUND
        elif code == blocks.OPT_COMMENT:
            texts.append(value.decode("utf-8", errors="replace"))
    return outbound, packet_id, texts
