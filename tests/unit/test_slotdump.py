"""Slots as bytes with their names: nothing is lost, nothing is wider than the terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.slots import make_slot, slots
from xenintro.abi import Interface, interface
from xenintro.codec import decode, encode
from xenintro.response import Response
from xenintro.sinks.slotdump import SlotDump

V7 = interface("vm_event-7")


def bytes_of(lines: list[str], size: int) -> bytes:
    """The slot that a dump shows."""
    out = bytearray(size)
    for line in lines:
        if match := re.match(r"  ([0-9a-f]{3})  ((?:[0-9a-f]{2} {1,2})*[0-9a-f]{2})", line):
            data = bytes.fromhex(match[2])
            start = int(match[1], 16)
            out[start : start + len(data)] = data
    return bytes(out)


@settings(deadline=None)
@given(slots(), st.none() | st.integers(60, 200))
def test_every_byte_is_shown(slot: tuple[Interface, bytes], width: int | None) -> None:
    layout, raw = slot
    dump = SlotDump(width)
    event = decode(raw, layout)
    assert bytes_of(dump.request(event), layout.slot_size) == raw
    assert bytes_of(dump.response(event, raw), layout.slot_size) == raw


@settings(deadline=None)
@given(slots(), st.integers(72, 200))
def test_no_line_is_wider_than_the_terminal(slot: tuple[Interface, bytes], width: int) -> None:
    layout, raw = slot
    flags = layout.names_of((1 << 64) - 1)
    for line in SlotDump(width).request(decode(raw, layout)):
        assert len(line) <= width or any(name in line for name in flags)


@pytest.mark.parametrize("width", [None, 72, 104])
def test_names_stand_beside_their_bytes(width: int | None) -> None:
    raw = make_slot(
        V7, 4, payload={"index": 1, "new_value": 0x103000}, registers={"rip": 0x1000}, paused=True
    )
    lines = SlotDump(width).request(decode(raw, V7))
    text = "\n".join(lines)
    for told in (
        "version 7",
        "flags vcpu_paused",
        "reason write_ctrlreg",
        "new_value 0x103000",
        "rip 0x1000",
    ):
        assert told in text
    (line,) = [line for line in lines if "new_value" in line]
    assert "00 30 10 00" in line


def test_a_response_tells_registers_only_where_it_sets_them() -> None:
    event = decode(make_slot(V7, 10, registers={"rip": 0x1000, "rbx": 7}, paused=True), V7)
    dump = SlotDump(None)
    assert "rip" not in "\n".join(dump.response(event, encode(event, Response.plain())))
    assert "rip 0x1002" in "\n".join(
        dump.response(event, encode(event, Response.set_registers({"rip": 0x1002})))
    )
    reads = encode(event, Response.emulate(read_data=b"abcd"))
    text = "\n".join(dump.response(event, reads))
    assert "read_data" in text
    assert "61 62 63 64" in text
