"""Parquet: a dataset directory partitioned by domain and hour, one schema for every reason and interface.

``DIR/domain=win10/hour=2026-11-22T16/20261122T164023.666359835Z-0.parquet``: files are called after the first
event of the capture, so that captures can be added to a dataset. Columns are called as in the JSON line:
``mem_access.gfn``, ``regs.rip``; null where the event, the interface or the hypervisor gives none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xenintro.export.batches import batches
from xenintro.export.columns import (
    COMMON,
    PAYLOADS,
    Kind,
    Register,
    all_registers,
    common,
    has_registers,
    payload,
    registers_of,
)
from xenintro.export.output import exists

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xenintro.abi import Field
    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.events import Event
    from xenintro.export import Options

#: Events that are in memory at once: a row group.
_ROWS = 1 << 15
_HOUR_NS = 3_600_000_000_000

_TYPES = {
    Kind.U64: pa.uint64(),
    Kind.U32: pa.uint32(),
    Kind.I64: pa.int64(),
    Kind.BOOL: pa.bool_(),
    Kind.NAME: pa.dictionary(pa.int32(), pa.string()),
    Kind.TEXT: pa.string(),
}
_TIMESTAMP = pa.timestamp("ns", tz="UTC")

SCHEMA = pa.schema(
    [
        pa.field("seq", pa.uint64()),
        pa.field("ts", _TIMESTAMP),
        pa.field("domid", pa.uint32()),
        *(pa.field(name, _TYPES[kind]) for name, kind in COMMON.items()),
        *(
            pa.field(f"{reason}.{name}", _TYPES[member.kind])
            for reason, members in PAYLOADS.items()
            for name, member in members.items()
        ),
        *(pa.field(f"regs.{name}", _TYPES[kind]) for name, kind in all_registers().items()),
    ]
)


def export(info: CaptureInfo, events: Iterable[Answered], output: Path, options: Options) -> None:
    """Write files into the directory.

    Raises:
        UsageError: the capture is in there already.
    """
    dataset = _Dataset(info, output, options)
    try:
        for batch in batches(events, _ROWS, _HOUR_NS):
            dataset.write(batch)
        dataset.close()
    finally:
        dataset.abandon()


class _Dataset:
    """The files of one capture: one for each hour, or part of one, in their order."""

    def __init__(self, info: CaptureInfo, output: Path, options: Options) -> None:
        self._info = info
        self._output = output
        self._force = options.force
        self._schema = SCHEMA.with_metadata({"xenintro": msgspec.json.encode(info)})
        self._seq = 0
        self._files = 0
        self._first_ns = 0
        self._hour = -1
        self._path = Path()
        self._partial = Path()
        self._writer: pq.ParquetWriter | None = None

    def write(self, batch: Sequence[Answered]) -> None:
        """Write events of one hour as a row group."""
        hour = batch[0].taken_ns // _HOUR_NS
        if self._writer is None or hour != self._hour:
            self.close()
            self._begin(hour, batch[0].taken_ns)
        columns = _columns(batch, self._info, self._seq)
        self._seq += len(batch)
        arrays = [
            columns[field.name] if field.name in columns else pa.nulls(len(batch), field.type)
            for field in SCHEMA
        ]
        assert self._writer is not None
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=_ROWS)

    def _begin(self, hour: int, first_ns: int) -> None:
        if not self._files:
            self._first_ns = first_ns
        self._hour = hour
        info = self._info
        domain = info.domain or ("unknown" if info.domid is None else str(info.domid))
        when = datetime.fromtimestamp(hour * 3600, UTC)
        folder = self._output / f"domain={quote(domain, safe='')}" / f"hour={when:%Y-%m-%dT%H}"
        self._path = folder / f"{_stamp(self._first_ns)}-{self._files}.parquet"
        if self._path.exists() and not self._force:
            raise exists(self._path)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files += 1
        # Readers of datasets pass over names that begin with a dot.
        self._partial = folder / f".{self._path.name}.partial"
        self._partial.touch(mode=0o600)
        self._writer = pq.ParquetWriter(self._partial, self._schema, compression="zstd")

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._partial.replace(self._path)

    def abandon(self) -> None:
        """Remove a file that is not finished."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._partial.unlink(missing_ok=True)


def _stamp(ns: int) -> str:
    seconds, fraction = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{fraction:09d}Z"


def _columns(batch: Sequence[Answered], info: CaptureInfo, seq: int) -> dict[str, pa.Array]:
    rows = len(batch)
    events = [answered.event for answered in batch]
    columns = {
        "seq": pa.array(range(seq, seq + rows), pa.uint64()),
        "ts": pa.array([answered.taken_ns for answered in batch], pa.int64()).cast(_TIMESTAMP),
        "domid": pa.repeat(pa.scalar(info.domid, pa.uint32()), rows),
    }
    for name, values in common(batch).items():
        columns[name] = pa.array(values, _TYPES[COMMON[name]])
    places: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        places.setdefault(event.reason, []).append(place)
    for reason, its_places in places.items():
        columns |= _payload(reason, its_places, events)
    return columns | _registers(events, places)


def _payload(reason: str, places: list[int], events: Sequence[Event]) -> dict[str, pa.Array]:
    """The columns of one reason, null in the rows of others."""
    members = PAYLOADS.get(reason)
    if not members:
        return {}
    rows: list[int | None] = [None] * len(events)
    for number, place in enumerate(places):
        rows[place] = number
    taken = pa.array(rows, pa.int32())
    return {
        f"{reason}.{name}": pa.array(values, _TYPES[members[name].kind]).take(taken)
        for name, values in payload([events[place] for place in places]).items()
    }


def _registers(events: Sequence[Event], places: Mapping[str, Sequence[int]]) -> dict[str, pa.Array]:
    """Register columns, cut out of all slots at once: no number of them becomes an object."""
    layout = events[0].interface
    slots = memoryview(b"".join([event.raw for event in events]))
    known = None
    if not all(map(has_registers, events)):
        known = pa.array([has_registers(event) for event in events])
    absent: dict[str, list[str]] = {}
    for reason in places:
        for name in layout.unfilled(reason):
            absent.setdefault(name, []).append(reason)
    masks: dict[tuple[str, ...], pa.Array] = {}
    columns = {}
    for register in registers_of(layout.registers):
        stored = _stored(register.field, slots, layout.slot_size)
        values = _cut(stored, register)
        if reasons := tuple(absent.get(register.field.name, ())):
            if reasons not in masks:
                masks[reasons] = pa.array([event.reason in reasons for event in events])
            zero = pc.equal(stored, pa.scalar(0, stored.type))
            values = pc.if_else(pc.and_(masks[reasons], zero), None, values)
        columns[f"regs.{register.name}"] = values if known is None else pc.if_else(known, values, None)
    return columns


def _stored(field: Field, slots: memoryview, slot_size: int) -> pa.Array:
    """What is in one place of every slot. Fields and slots lie at multiples of their size."""
    code = "I" if field.code == "segment" else field.code
    words = slots.cast(code)  # type: ignore[call-overload]  # which of them is in the table
    data = words[field.offset // field.size :: slot_size // field.size].tobytes()
    return pa.Array.from_buffers(_BY_CODE[code], len(data) // field.size, [None, pa.py_buffer(data)])


def _cut(stored: pa.Array, register: Register) -> pa.Array:
    if register.mask:
        shift, mask = (pa.scalar(number, stored.type) for number in (register.shift, register.mask))
        stored = pc.bit_wise_and(pc.shift_right(stored, shift), mask)
    return stored.cast(_TYPES[register.kind])


_BY_CODE: Mapping[str, Any] = {"H": pa.uint16(), "I": pa.uint32(), "Q": pa.uint64()}
