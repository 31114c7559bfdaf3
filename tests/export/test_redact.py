"""What --redact takes away, and what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.export.samples import SAMPLES
from tests.slots import slots
from xenintro.answered import Answered
from xenintro.codec import decode, encode
from xenintro.events import UnknownEvent
from xenintro.export.redact import GENERAL_REGISTERS, redacted
from xenintro.response import Response
from xenintro.sinks.jsonl import event_record

if TYPE_CHECKING:
    from xenintro.abi import Interface


@pytest.mark.parametrize("name", SAMPLES)
def test_only_general_registers_change(name: str) -> None:
    for before, after in zip(SAMPLES[name].events, redacted(SAMPLES[name].events), strict=True):
        was, now = event_record(before.event), event_record(after.event)
        if isinstance(before.event, UnknownEvent):
            continue
        for register, value in (now["regs"] or {}).items():
            assert value in ("0x0", None) if register in GENERAL_REGISTERS else value == was["regs"][register]
        assert {**was, "regs": None} == {**now, "regs": None}
        assert before._replace(event=after.event, response=after.response) == after


@settings(deadline=None)
@given(slots())
def test_nothing_of_the_general_registers_is_left(slot: tuple[Interface, bytes]) -> None:
    layout, raw = slot
    event = decode(raw, layout)
    (after,) = redacted([Answered(event, "allow", b"", 0, 0)])
    assert type(after.event) is type(event)
    for name in GENERAL_REGISTERS:
        if name in layout.registers:
            offset = layout.registers[name].offset
            assert after.event.raw[offset : offset + 8] == bytes(8)
    assert len(after.event.raw) == layout.slot_size


def test_an_unknown_event_keeps_its_header_alone() -> None:
    (unknown,) = [one for one in SAMPLES["x86"].events if one.event.reason_code == 99]
    secret = unknown._replace(event=decode(unknown.event.raw[:24] + b"s" * 376, unknown.event.interface))
    (after,) = redacted([secret])
    assert after.event.raw == unknown.event.raw[:24] + bytes(376)


def test_data_of_a_response_goes_too() -> None:
    event = SAMPLES["x86"].events[0].event
    response = encode(event, Response.emulate(read_data=b"secret" * 20))
    (after,) = redacted([Answered(event, "emulate", response, 0, 0)])
    assert b"secret" not in after.response
    assert after.response[:56] == response[:56]
