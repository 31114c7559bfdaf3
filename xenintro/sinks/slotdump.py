"""A slot as bytes, with the names of what is in them beside."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from xenintro.abi import Flag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xenintro.abi import Field, Interface
    from xenintro.events import Event

_WIDE, _NARROW = 16, 8
#: Columns from which on 16 bytes go on a line: so much is left for the names.
_WIDE_FROM = 104


class _Place(NamedTuple):
    """A field, or bytes of which more than their number cannot be told."""

    name: str
    offset: int
    field: Field | None


class SlotDump:
    """Formats slots.

    Args:
        width: columns of the terminal; None for no limit.
    """

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._bytes = _WIDE if width is None or width >= _WIDE_FROM else _NARROW

    def request(self, event: Event) -> list[str]:
        """A request: its header, payload and registers."""
        known = event.version == event.interface.version
        reason = event.reason if known else ""
        return self._lines(event.raw, _places(event.interface, reason, registers=known), event.interface)

    def response(self, event: Event, raw: bytes) -> list[str]:
        """The response to a request: registers are told only where they are set."""
        layout = event.interface
        flags = _flags(layout, raw)
        places = list(_places(layout, event.reason, registers=bool(flags & Flag.SET_REGISTERS)))
        for flag, name, place in (
            (Flag.SET_EMUL_READ_DATA, "read_data", layout.emul_read),
            (Flag.SET_EMUL_INSN_DATA, "insn_data", layout.emul_insn),
        ):
            if flags & flag and place is not None:
                places.append(_Place(name, place[0], None))
        view = layout.fast_singlestep_p2midx
        if flags & Flag.FAST_SINGLESTEP and view is not None:
            places.append(_Place("fast_singlestep.p2midx", view.offset, view))
        return self._lines(raw, places, layout)

    def _lines(self, raw: bytes, places: Iterable[_Place], layout: Interface) -> list[str]:
        """Lines of bytes; those that are all zero, and nothing but zero beside them, are one ``*``."""
        by_line: dict[int, list[str]] = {}
        for place in places:
            if text := _told(raw, place, layout):
                by_line.setdefault(place.offset // self._bytes, []).append(text)
        lines: list[str] = []
        for number, start in enumerate(range(0, len(raw), self._bytes)):
            data = raw[start : start + self._bytes]
            told = by_line.get(number, [])
            if any(data):
                lines += self._line(start, data, told)
            elif lines[-1:] != ["  *"]:
                lines.append("  *")
        return lines

    def _line(self, start: int, data: bytes, told: list[str]) -> Iterator[str]:
        half = self._bytes // 2
        digits = f"  {start:03x}  {data[:half].hex(' '):<{half * 3}} {data[half:].hex(' '):<{half * 3}}  "
        for row in self._rows(told, len(digits)):
            yield (digits + row).rstrip()
            digits = " " * len(digits)

    def _rows(self, told: list[str], indent: int) -> Iterator[str]:
        """What is told of one line of bytes, on as many lines as the terminal needs."""
        row = ""
        for text in told:
            longer = f"{row}  {text}" if row else text
            if row and self._width is not None and indent + len(longer) > self._width:
                yield row
                longer = text
            row = longer
        yield row


@cache
def _places(layout: Interface, reason: str, *, registers: bool) -> tuple[_Place, ...]:
    """The fields of a slot in their order."""
    fields = [
        *layout.header.values(),
        *layout.payloads.get(reason, {}).values(),
        *(layout.registers.values() if registers else ()),
    ]
    return tuple(
        _Place(field.name, field.offset, field) for field in sorted(fields, key=lambda one: one.offset)
    )


def _told(raw: bytes, place: _Place, layout: Interface) -> str:
    """A field's name and value; nothing for one that is zero, unless it is in the header."""
    field = place.field
    if field is None:
        return place.name
    value = int(struct.unpack_from("<" + field.code.replace("segment", "I"), raw, field.offset)[0])
    if field.bits:
        value = value >> field.shift & (1 << field.bits) - 1
    if not value and layout.header.get(field.name) is not field:
        return ""
    if layout.header.get(field.name) is field:
        if field.name == "flags":
            return f"flags {','.join(layout.names_of(value)) or '0'}"
        if field.name == "reason":
            return f"reason {layout.reasons.get(value, value)}"
    elif field.code == "segment":
        return f"{field.name} limit {value & 0xFFFFF:#x} ar {value >> 20:#x}"
    return f"{field.name} {value:#x}" if field.code == "Q" else f"{field.name} {value}"


def _flags(layout: Interface, raw: bytes) -> int:
    """Flags of a response as `Flag` numbers them; mem_event has none of those that matter here."""
    field = layout.header["flags"]
    value = int(struct.unpack_from(f"<{field.code}", raw, field.offset)[0])
    return value if layout.family == "vm_event" else 0
