"""Requests made of fields: for tests of rules, and for an event that is known by its JSON line alone."""

from __future__ import annotations

import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from xenintro.abi import CTRLREGS, DESCRIPTORS, MSRS, Access
from xenintro.errors import UsageError
from xenintro.fields import FIELDS, plain_fields
from xenintro.policy.language.scope import nearest
from xenintro.units import parse_int

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xenintro.abi import Field, Interface

_CODES = {"segment": "I"}
_ACCESS_BITS = {
    "gla_valid": Access.GLA_VALID,
    "fault_with_gla": Access.FAULT_WITH_GLA,
    "fault_in_gpt": Access.FAULT_IN_GPT,
}

#: Names for the numbers that a readable field stands for.
_NUMBERS: Mapping[str, Mapping[str, int]] = {
    "write_ctrlreg": {name: index for index, name in enumerate(CTRLREGS)},
    "mov_to_msr": MSRS,
    "descriptor_access": {name: number for number, name in DESCRIPTORS.items()},
}

#: Members that ``register`` is a name of.
_NUMBERED = frozenset({"index", "msr", "descriptor"})


def make_request(layout: Interface, reason: str, values: Mapping[str, Any]) -> bytes:
    """A slot with a synchronous request of one reason; what is not given is zero.

    Args:
        layout: the interface.
        reason: of the request.
        values: by plain field names; numbers may be strings, ``msr`` and ``register`` names.

    Raises:
        UsageError: no such field, or not a value of it.
    """
    raw = bytearray(layout.slot_size)
    places = [
        (layout.header.get("version"), layout.version),
        (layout.header.get("reason"), _code(layout, reason, values)),
        *_places(layout, reason, "flags", ["vcpu_paused"]),
    ]
    if "flags" in values:
        places.pop()
    for key, value in values.items():
        places += _places(layout, reason, key, value)
    for field, number in places:
        if field is not None and number is not None:
            _put(raw, field, number)
    return bytes(raw)


def fields_of_line(record: Mapping[str, Any]) -> dict[str, Any]:
    """The plain fields of a JSON line, as `make_request` takes them."""
    reason = record.get("reason", "")
    payload = dict(record.get(reason) or {})
    if "flags" in payload:  # the request has flags too
        payload[f"{reason}.flags"] = payload.pop("flags")
    if not payload.keys().isdisjoint(_NUMBERED):
        payload.pop("register", None)  # a name for the same, if there is one
    registers = {f"regs.{name}": value for name, value in (record.get("regs") or {}).items()}
    common = {key: record.get(key) for key in ("vcpu_id", "altp2m_idx", "flags")}
    values = {**registers, **payload, **common}
    return {key: value for key, value in values.items() if value is not None}


def _code(layout: Interface, reason: str, values: Mapping[str, Any]) -> int:
    """The number of a reason; mem_event has one for each control register."""
    codes = [code for code, name in layout.reasons.items() if name == reason]
    if not codes:
        raise UsageError(
            f"{layout.id} has no {reason}", why=f"it has {', '.join(dict.fromkeys(layout.reasons.values()))}"
        )
    if layout.register_index and reason in _NUMBERS:
        index = parse_number(values.get("register", values.get("index", 0)), _NUMBERS[reason])
        codes = [code for code in codes if layout.register_index.get(code, index) == index] or codes
    return codes[0]


def _places(layout: Interface, reason: str, key: str, value: Any) -> list[tuple[Field | None, int | None]]:
    """Where a field is in the slot, and the number to put there."""
    try:
        return list(_spread(layout, reason, key, value))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(f"{key}: {value!r} is not a value of it") from error


def _spread(layout: Interface, reason: str, key: str, value: Any) -> Iterator[tuple[Field | None, int]]:
    payload = layout.payloads.get(reason, {})
    known = plain_fields(reason)
    if key == "flags":
        bits = {name: bit for bit, name in layout.flag_names.items()}
        yield layout.header.get("flags"), sum(1 << bits[name] for name in value)
    elif key == "access":
        for letter in value:
            yield from _access(payload, f"access_{letter}", Access["RWX"["rwx".index(letter)]])
    elif key in _ACCESS_BITS and reason == "mem_access":
        yield from _access(payload, key, _ACCESS_BITS[key] if value else 0)
    elif key in payload:
        yield payload[key], parse_number(value, _NUMBERS.get(reason, {}))
    elif (register := key.removeprefix("regs.")) in layout.registers:
        number = _segment(value) if isinstance(value, dict) else parse_number(value)
        yield layout.registers[register], number
    elif (field := known.get(key) or FIELDS.get(key)) is not None and field.reason in (None, reason):
        named = payload if field.reason is not None else layout.header
        member = next((one for one in field.members if one in named), key)
        yield named.get(member), parse_number(value, _NUMBERS.get(reason, {}))
    else:
        close = nearest(key, known)
        raise UsageError(
            f"{reason} has no field {key}",
            hint=f"did you mean {close}?" if close else f"see: xenintro policy fields {reason}",
        )


def _access(payload: Mapping[str, Field], name: str, bit: int) -> Iterator[tuple[Field | None, int]]:
    if name in payload:  # mem_event: a field of its own
        yield payload[name], int(bit != 0)
    else:
        yield payload.get("flags"), int(bit)


def _segment(value: Mapping[str, Any]) -> int:
    return int(value.get("limit", 0)) | int(value.get("ar", 0)) << 20


def parse_number(value: Any, names: Mapping[str, int] = MappingProxyType({})) -> int:
    """A number as rules and JSON lines have it: itself, a string of it, or a name for it.

    Raises:
        UsageError: not a number.
    """
    if isinstance(value, str):
        named = names.get(value.lower())
        return parse_int(value) if named is None else named
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"not a number: {value!r}")
    return value


def _put(raw: bytearray, field: Field, number: int) -> None:
    code = f"<{_CODES.get(field.code, field.code)}"
    before = struct.unpack_from(code, raw, field.offset)[0]
    try:
        struct.pack_into(code, raw, field.offset, before | number << field.shift)
    except struct.error as error:
        raise UsageError(
            f"{field.name}: {number:#x} does not fit", why=f"it has {field.size} bytes"
        ) from error
