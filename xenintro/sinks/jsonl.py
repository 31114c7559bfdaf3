"""JSON Lines: one object per event, keys only ever added.

Values of 64 bits are hexadecimal strings (jq and JavaScript lose bits above 2^53), smaller ones are numbers.
A register that the hypervisor does not fill is null.
"""

from __future__ import annotations

import datetime
import struct
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from xenintro.events import Event, UnknownEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.abi import Field, Interface

#: Event members whose JSON key is the header's member name.
_JSON_NAMES = {
    "access_flags": "flags",
    "paging_flags": "flags",
    "exit_reason": "reason",
    "is_in": "in",
    "is_str": "str",
}

#: Readable keys beside the header's members.
_READABLE: Mapping[str, tuple[str, ...]] = {
    "mem_access": ("access", "gla_valid", "fault_with_gla", "fault_in_gpt"),
    "write_ctrlreg": ("register",),
    "mov_to_msr": ("register",),
    "descriptor_access": ("register",),
}

#: Members of the event types that are narrower than 64 bits and may be absent from the layout.
_NARROW = frozenset({"index", "access_flags", "paging_flags", "insn_length", "type", "p2mt"})

_COMMON_MEMBERS = 7

#: What a register looks like that is not filled.
_ZEROES = ("0x0", 0, {"limit": 0, "ar": 0})

_encode = msgspec.json.Encoder().encode


def line(record: Mapping[str, Any]) -> bytes:
    """One line of JSON with its newline."""
    return _encode(record) + b"\n"


def event_record(event: Event) -> dict[str, Any]:
    """The part of the object that comes from the slot: ``abi`` to ``regs``."""
    interface = event.interface
    record: dict[str, Any] = {
        "abi": interface.id,
        "arch": interface.arch,
        "vcpu_id": event.vcpu_id,
        "reason": event.reason,
        "flags": event.flag_names,
    }
    if event.altp2m_idx is not None:
        record["altp2m_idx"] = event.altp2m_idx
    record[event.reason] = _payload(event)
    record["regs"] = _registers(event)
    return record


@cache
def payload_members(kind: type[Event]) -> Mapping[str, str]:
    """The keys that a payload has in every interface, each with the attribute of the event that it shows."""
    members = {_JSON_NAMES.get(member, member): member for member in kind.__struct_fields__[_COMMON_MEMBERS:]}
    return members | {name: name for name in _READABLE.get(kind.reason, ())}


def timestamp(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC with nine digits."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    return f"{_second(seconds)}.{fraction:09d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}"


def _payload(event: Event) -> dict[str, Any]:
    if isinstance(event, UnknownEvent):
        return {"version": event.version, "reason_code": event.reason_code, "raw": event.raw.hex()}
    payload = _payload_reader(event.interface, event.reason)(event.raw)
    for member in event.__struct_fields__[_COMMON_MEMBERS:]:
        name = _JSON_NAMES.get(member, member)
        if name not in payload:
            value = getattr(event, member)
            payload[name] = value if value is None or member in _NARROW else hex(value)
    for name in _READABLE.get(event.reason, ()):
        payload[name] = getattr(event, name)
    return payload


def _registers(event: Event) -> dict[str, Any] | None:
    interface = event.interface
    if not interface.registers or event.version != interface.version:
        return None
    values = _reader(tuple(interface.registers.values()))(event.raw)
    for name in interface.unfilled(event.reason):
        if values[name] in _ZEROES:
            values[name] = None
    return values


@cache
def _payload_reader(interface: Interface, reason: str) -> Callable[[bytes], dict[str, Any]]:
    return _reader(tuple(interface.payloads.get(reason, {}).values()))


@cache
def _reader(fields: tuple[Field, ...]) -> Callable[[bytes], dict[str, Any]]:
    """Reads fields of a slot into a dictionary of JSON values, by one unpack of all places."""
    places = sorted({(field.offset, _CODE.get(field.code, field.code)) for field in fields})
    layout, at = "<", 0
    for offset, code in places:
        layout += f"{offset - at}x{code}"
        at = offset + struct.calcsize(f"<{code}")
    unpack = struct.Struct(layout).unpack_from
    names = [field.name for field in fields]
    runs: list[tuple[Callable[[int], Any] | None, int, int]] = []
    for field in fields:
        place, convert = places.index((field.offset, _CODE.get(field.code, field.code))), _converter(field)
        if runs and runs[-1][0] is convert and runs[-1][2] == place:
            runs[-1] = (convert, runs[-1][1], place + 1)
        else:
            runs.append((convert, place, place + 1))

    def read(raw: bytes) -> dict[str, Any]:
        values = unpack(raw)
        converted: list[Any] = []
        for convert, start, end in runs:
            part = values[start:end]
            converted += part if convert is None else map(convert, part)
        return dict(zip(names, converted, strict=True))

    return read


def _converter(field: Field) -> Callable[[int], Any] | None:
    """From what is in the slot to what is in the JSON; None where that is the same."""
    if field.code == "Q":
        return hex
    if field.bits:
        return lambda value: value >> field.shift & (1 << field.bits) - 1
    return _segment if field.code == "segment" else None


def _segment(packed: int) -> dict[str, int]:
    return {"limit": packed & 0xFFFFF, "ar": packed >> 20}


_CODE = {"segment": "I"}
