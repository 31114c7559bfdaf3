"""Decode, encode, and the way from taking a request to its answer, on a ring page in this process."""

from __future__ import annotations

import struct
from time import perf_counter_ns
from typing import TYPE_CHECKING

from tests.bench.measure import ROUNDS, Row, Timing, against, per_call_ns
from tests.slots import make_slot
from xenintro.abi import RING_INDICES, SLOT0, Interface, interface
from xenintro.codec import decoder, encode
from xenintro.events import Event, MemAccess
from xenintro.response import Response, allow
from xenintro.session import Session
from xenintro.source import Missed, Request
from xenintro.xen.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAYOUT = interface("vm_event-7")
CASES = {
    "mem_access": make_slot(_LAYOUT, 1, payload={"gfn": 0x104, "gla": 0x104010, "flags": 0xA}, paused=True),
    "write_ctrlreg": make_slot(_LAYOUT, 4, payload={"index": 1, "new_value": 0x103000}, paused=True),
    "cpuid": make_slot(_LAYOUT, 10, payload={"insn_length": 2}, registers={"rip": 0x1000}, paused=True),
}


def codec_rows() -> Iterator[Row]:
    """Decode and encode per event against struct.unpack_from and pack_into of the same fields."""
    decode = decoder(_LAYOUT)
    for reason, raw in CASES.items():
        fields = [*_LAYOUT.header.values(), *_LAYOUT.payloads[reason].values()]
        code, at = "<", 0
        for field in fields:
            code += f"{field.offset - at}x{field.code}"
            at = field.offset + field.size
        layout = struct.Struct(code)
        yield against(
            f"decode {reason}",
            lambda raw=raw: per_call_ns(lambda: decode(raw)),
            "struct.unpack_from",
            lambda raw=raw, layout=layout: per_call_ns(lambda: layout.unpack_from(raw)),
            unit="ns",
            goal="< 1000 ns",
        )
        event = decode(raw)
        response = allow(event)
        values = layout.unpack_from(raw)
        room = bytearray(_LAYOUT.slot_size)
        yield against(
            f"encode {reason}",
            lambda event=event, response=response: per_call_ns(lambda: encode(event, response)),
            "struct.pack_into",
            lambda layout=layout, values=values, room=room: per_call_ns(
                lambda: layout.pack_into(room, 0, *values)
            ),
            unit="ns",
        )


class PageSource:
    """A ring page whose other side is this process too: no hypercall, no wake-up."""

    def __init__(self, raw: bytes) -> None:
        self.interface: Interface = _LAYOUT
        self._raw = raw
        self._page = bytearray(4096)
        self._ring = Ring(self._page, _LAYOUT.slot_size, _LAYOUT.nr_slots)
        self._ring.init()
        self._produced = 0
        self.flushed_ns = 0

    def note(self, record: memoryview) -> None:
        """Note answers as a ring does whose capture is written."""
        self._ring.record(record)

    def produce(self) -> None:
        start = SLOT0 + (self._produced % _LAYOUT.nr_slots) * _LAYOUT.slot_size
        self._page[start : start + _LAYOUT.slot_size] = self._raw
        self._produced += 1
        struct.pack_into("=I", self._page, 0, self._produced & 0xFFFFFFFF)

    def wait(self, timeout: float) -> None:
        """Never called: the batch is driven by hand."""

    def requests(self) -> Iterator[Request]:
        while (raw := self._ring.take()) is not None:
            yield Request(raw, self)

    def prepare(self, event: Event, response: Response | None) -> Response:
        return allow(event) if response is None else response

    def check(self, event: Event, response: Response, *, sent: bool = True) -> None:
        """Never called: the policy lets everything happen."""

    def put(self, response: bytes) -> bool:
        return self._ring.put(response)

    def flush(self) -> int:
        sooner_ns = self._ring.publish()
        self.flushed_ns = perf_counter_ns()
        return sooner_ns

    def missed(self) -> list[Missed]:
        return []

    def answered(self) -> int:
        return int(RING_INDICES.unpack_from(self._page)[2])


def three_checks(event: Event) -> Response | None:
    """A policy with three conditions, none of which holds."""
    if isinstance(event, MemAccess):
        if event.gfn == 0x999 and event.access_flags & 2:
            return Response.emulate(write=False)
        if event.gla >> 47 and event.registers.rip < 0x1000:
            return Response.emulate(write=False)
    if event.vcpu_id > 64:
        return Response.plain()
    return None


def take_to_answer_row(events: int = 20_000) -> list[Row]:
    """From finding a request on the ring to its answer being published, through the real loop."""
    source = PageSource(CASES["mem_access"])
    session = Session(source, decide=three_checks)
    medians, tails = [], []
    for _ in range(ROUNDS):
        times = []
        for _ in range(events // ROUNDS):
            source.produce()
            begin = perf_counter_ns()
            session.answer_batch()
            times.append(perf_counter_ns() - begin)
        times.sort()
        medians.append(times[len(times) // 2] / 1000)
        tails.append(times[len(times) * 99 // 100] / 1000)
    return [
        Row("take to answer, three checks, p50", "us", Timing.of(medians), goal="< 5 us"),
        Row("take to answer, three checks, p99", "us", Timing.of(tails)),
    ]
