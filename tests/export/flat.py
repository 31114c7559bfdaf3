"""An event's JSON record laid out flat, as tables have it: what exports are compared with."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tests.slots import _put
from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, Interface, interface
from xenintro.answered import Answered
from xenintro.codec import decode
from xenintro.export.columns import PAYLOADS, Kind
from xenintro.sinks.jsonl import event_record

if TYPE_CHECKING:
    from xenintro.events import Event


def layouts() -> list[Interface]:
    return [interface(one, arch) for one in INTERFACE_IDS for arch in ARCHITECTURES]


def noise(layout: Interface, count: int) -> list[Answered]:
    """Events of every reason, of bytes without meaning; some slots are mostly zero."""
    chance = random.Random(layout.id + layout.arch)
    events = []
    for number in range(count):
        raw = bytearray(chance.randbytes(layout.slot_size))
        if number % 3 == 0:
            raw[56:] = bytes(max(0, len(raw) - 56))
        if layout.version is not None and number % 7:
            _put(raw, layout.header["version"], layout.version)
        if "reason" in layout.header and number % 5:
            _put(raw, layout.header["reason"], chance.choice(sorted(layout.reasons)))
        events.append(decode(bytes(raw), layout))
    return [Answered(event, "allow", b"response", at, at + 1) for at, event in enumerate(events)]


def payload(event: Event) -> dict[str, Any]:
    """The payload's columns."""
    record = event_record(event)[event.reason]
    columns = PAYLOADS.get(event.reason, {})
    return {name: _plain(record[name], member.kind) for name, member in columns.items()}


def registers(event: Event) -> dict[str, Any] | None:
    """The registers' columns, segments in two."""
    record = event_record(event)["regs"]
    if record is None:
        return None
    flat = {}
    for name, value in record.items():
        if event.interface.registers[name].code == "segment":
            for part in ("limit", "ar"):
                flat[f"{name}.{part}"] = None if value is None else value[part]
        else:
            flat[name] = _plain(value, Kind.U64)
    return flat


def _plain(value: Any, kind: Kind) -> Any:
    """Numbers as numbers."""
    if isinstance(value, str) and kind in (Kind.U64, Kind.U32):
        return int(value, 16)
    if isinstance(value, int) and kind is Kind.BOOL:
        return bool(value)
    return value
