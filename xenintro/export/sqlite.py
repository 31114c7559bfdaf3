"""SQLite: a table of events, one for each reason's payload, one of registers, all joined by ``seq``.

SQLite's integers are signed. A value of 64 bits is a text of ``0x`` and 16 digits instead: it sorts and
compares as the number does, and reads as an address does. Smaller values are integers, yes or no is 1 or 0.
"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from xenintro.errors import XenintroError
from xenintro.export.batches import batches
from xenintro.export.columns import (
    COMMON,
    PAYLOADS,
    Kind,
    all_registers,
    common,
    has_registers,
    payload,
    registers_of,
)
from xenintro.sinks.jsonl import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from xenintro.abi import Field, Interface
    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.events import Event
    from xenintro.export import Options

#: Events in one transaction.
_ROWS = 4096

_TYPES = {
    Kind.U64: "TEXT",
    Kind.U32: "INTEGER",
    Kind.I64: "INTEGER",
    Kind.BOOL: "INTEGER",
    Kind.NAME: "TEXT",
    Kind.TEXT: "TEXT",
}

#: The same in every event of a capture: told by the table ``meta``.
_IN_META = ("abi", "arch")

_EVENT_COLUMNS = {name: kind for name, kind in COMMON.items() if name not in _IN_META}

#: Made at the end: table and columns, and what is left out.
_INDICES = (
    ("events", "ts_ns", ""),
    ("events", "reason", ""),
    ("events", "rule", "rule IS NOT NULL"),
    ("mem_access", "gfn", ""),
    ("mov_to_msr", "msr", ""),
    ("regs", "rip", "rip IS NOT NULL"),
    ("regs", "pc", "pc IS NOT NULL"),
)


def export(info: CaptureInfo, events: Iterable[Answered], output: Path, options: Options) -> None:
    """Write the database.

    Raises:
        XenintroError: SQLite cannot, for instance because the disk is full.
    """
    try:
        # Nobody sees the file before it is whole: no journal, no waiting for the disk.
        with closing(sqlite3.connect(output, isolation_level=None)) as database:
            database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
            database.executescript("".join(_schema()))
            _write_meta(database, info)
            seq = 0
            for batch in batches(events, _ROWS):
                database.execute("BEGIN")
                _write(database, batch, seq)
                database.execute("COMMIT")
                seq += len(batch)
            database.executescript("".join(_indices()))
    except sqlite3.Error as error:
        raise XenintroError(f"cannot write {output}", why=str(error)) from error


def _schema() -> Iterable[str]:
    yield "CREATE TABLE meta (key TEXT PRIMARY KEY, value);\n"
    columns = "".join(f', "{name}" {_TYPES[kind]}' for name, kind in _EVENT_COLUMNS.items())
    yield f"CREATE TABLE events (seq INTEGER PRIMARY KEY, ts TEXT, ts_ns INTEGER{columns});\n"
    for reason, members in PAYLOADS.items():
        columns = "".join(f', "{name}" {_TYPES[member.kind]}' for name, member in members.items())
        yield f"CREATE TABLE {reason} (seq INTEGER PRIMARY KEY REFERENCES events{columns});\n"
    columns = "".join(f', "{name}" {_TYPES[kind]}' for name, kind in all_registers().items())
    yield f"CREATE TABLE regs (seq INTEGER PRIMARY KEY REFERENCES events{columns});\n"


def _indices() -> Iterable[str]:
    for table, column, condition in _INDICES:
        where = f" WHERE {condition}" if condition else ""
        yield f"CREATE INDEX {table}_{column} ON {table} ({column}){where};\n"


def _write_meta(database: sqlite3.Connection, info: CaptureInfo) -> None:
    rows = [(key, _stored(value)) for key, value in msgspec.structs.asdict(info).items()]
    database.executemany("INSERT INTO meta VALUES (?, ?)", rows)


def _stored(value: object) -> object:
    """What SQLite takes as it is, all else as JSON: lists, and numbers that no honest capture has."""
    if value is None or isinstance(value, str | float):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    return msgspec.json.encode(value).decode()


def _write(database: sqlite3.Connection, batch: Sequence[Answered], first: int) -> None:
    columns = common(batch)
    _insert(
        database,
        "events",
        {
            "seq": range(first, first + len(batch)),
            "ts": [timestamp(answered.taken_ns) for answered in batch],
            "ts_ns": [answered.taken_ns for answered in batch],
            **{name: columns[name] for name in _EVENT_COLUMNS},
        },
    )
    places: dict[str, list[int]] = {}
    for place, answered in enumerate(batch):
        places.setdefault(answered.event.reason, []).append(place)
    for reason, its_places in places.items():
        events = [batch[place].event for place in its_places]
        seqs = [first + place for place in its_places]
        if members := PAYLOADS.get(reason):
            values = {
                name: _hexadecimal(column) if members[name].kind is Kind.U64 else column
                for name, column in payload(events).items()
            }
            _insert(database, reason, {"seq": seqs, **values})
        _write_registers(database, seqs, events)


def _insert(database: sqlite3.Connection, table: str, columns: Mapping[str, Iterable[Any]]) -> None:
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join("?" * len(columns))
    database.executemany(
        f"INSERT INTO {table} ({names}) VALUES ({marks})",
        zip(*columns.values(), strict=True),
    )


def _write_registers(database: sqlite3.Connection, seqs: Sequence[int], events: Sequence[Event]) -> None:
    """The snapshots of events of one reason."""
    layout = events[0].interface
    names, read = _register_reader(layout, events[0].reason)
    rows = [(seq, *read(event.raw)) for seq, event in zip(seqs, events, strict=True) if has_registers(event)]
    columns = ", ".join(["seq", *(f'"{name}"' for name in names)])
    marks = ", ".join("?" * (len(names) + 1))
    database.executemany(f"INSERT INTO regs ({columns}) VALUES ({marks})", rows)


def _hexadecimal(values: Iterable[int | None]) -> list[str | None]:
    return [None if value is None else f"0x{value:016x}" for value in values]


@cache
def _register_reader(layout: Interface, reason: str) -> tuple[Sequence[str], Callable[[bytes], list[Any]]]:
    """The names of the columns, and what reads them from a slot."""
    registers = registers_of(layout.registers)
    wide = [one for one in registers if one.field.code == "Q"]
    narrow = [one for one in registers if one.field.code != "Q"]
    names = [one.name for one in (*wide, *narrow)]
    words = itemgetter(*(-1 - one.field.offset // 8 for one in wide), 0)
    unpack, place_of = _unpacker([one.field for one in narrow])
    cuts = [(place_of[one.field.name], one.shift, one.mask or 0xFFFFFFFF) for one in narrow]
    short = [place for place, one in enumerate(narrow, len(wide)) if one.kind is Kind.U64]
    unfilled = [
        [place for place, one in enumerate((*wide, *narrow)) if one.field.name == name]
        for name in layout.unfilled(reason)
    ]
    zeroes = (0, f"0x{0:016x}")

    def read(raw: bytes) -> list[Any]:
        # The whole slot as words of 16 digits, the last word first, by three calls.
        digits = ("0x" + raw[::-1].hex(" ", 8).replace(" ", " 0x")).split(" ")
        small = unpack(raw)
        values = [*words(digits)[:-1], *[small[place] >> shift & mask for place, shift, mask in cuts]]
        for place in short:
            values[place] = f"0x{values[place]:016x}"
        for places in unfilled:
            if all(values[place] in zeroes for place in places):
                for place in places:
                    values[place] = None
        return values

    return names, read


def _unpacker(fields: Iterable[Field]) -> tuple[Callable[[bytes], tuple[int, ...]], Mapping[str, int]]:
    """Reads fields by one call; and where in its result each is."""
    layout, at = "<", 0
    place_of: dict[str, int] = {}
    for field in sorted(set(fields), key=lambda one: one.offset):
        place_of[field.name] = len(place_of)
        layout += f"{field.offset - at}x{field.code.replace('segment', 'I')}"
        at = field.offset + field.size
    return struct.Struct(layout).unpack_from, place_of
