"""The columns of tables are all that events have."""

from __future__ import annotations

import pytest

from tests.export.flat import layouts, noise, payload
from tests.export.samples import SAMPLES
from xenintro.events import EVENT_TYPES, UnknownEvent
from xenintro.export.columns import COMMON, PAYLOADS, Kind, all_registers, common, registers_of
from xenintro.export.columns import payload as payload_columns
from xenintro.sinks.jsonl import event_record

_COMMON_MEMBERS = 7


def test_every_reason_and_member_has_its_column() -> None:
    for reason, kind in EVENT_TYPES.items():
        members = PAYLOADS.get(reason, {})
        if kind is UnknownEvent:
            continue
        stored = [member.attribute for member in members.values() if not member.of]
        assert sorted(stored) == sorted(kind.__struct_fields__[_COMMON_MEMBERS:])


def test_columns_are_as_wide_as_the_widest_interface() -> None:
    for layout in layouts():
        for reason, members in PAYLOADS.items():
            for name, field in layout.payloads.get(reason, {}).items():
                if field.code == "Q" and name in members:
                    assert members[name].kind is Kind.U64
        for register in registers_of(layout.registers):
            assert all_registers()[register.name] is register.kind


@pytest.mark.parametrize("layout", layouts(), ids=str)
def test_fields_lie_at_multiples_of_their_size(layout: object) -> None:
    from xenintro.abi import Interface

    assert isinstance(layout, Interface)
    for field in layout.registers.values():
        assert field.offset % field.size == 0
        assert layout.slot_size % field.size == 0


@pytest.mark.parametrize("name", SAMPLES)
def test_common_columns_are_those_of_the_json_line(name: str) -> None:
    events = SAMPLES[name].events
    columns = common(events)
    assert list(columns) == list(COMMON)
    for at, answered in enumerate(events):
        record = event_record(answered.event)
        for key in ("abi", "arch", "vcpu_id", "reason"):
            assert columns[key][at] == record[key]
        assert columns["flags"][at] == ",".join(record["flags"])
        assert columns["altp2m_idx"][at] == record.get("altp2m_idx")
        assert columns["pause_ns"][at] == answered.pause_ns


@pytest.mark.parametrize("layout", layouts(), ids=str)
def test_payloads_are_those_of_the_json_line(layout: object) -> None:
    for answered in noise(layout, 60):  # type: ignore[arg-type]
        columns = payload_columns([answered.event])
        assert {name: value for name, (value,) in columns.items()} == payload(answered.event)
