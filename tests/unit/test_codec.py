"""Round trips: what decode reads is what was put in, what encode writes is what was asked for."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.slots import interfaces, make_slot, slots
from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, Flag, Interface, interface
from xenintro.codec import acknowledge, decode, encode, unpause
from xenintro.errors import DamagedInputError
from xenintro.events import EVENT_TYPES, Cpuid, MemAccess, MovToMsr, UnknownEvent, WriteCtrlreg
from xenintro.response import ALLOW, Response, allow

V7 = interface("vm_event-7")


@given(slots())
def test_decode_never_raises_on_a_whole_slot(slot: tuple[Interface, bytes]) -> None:
    layout, raw = slot
    event = decode(raw, layout)
    assert event.raw == raw
    assert event.reason in EVENT_TYPES
    assert len(encode(event, allow(event))) == layout.slot_size


@given(slots())
def test_an_answer_leaks_nothing_of_the_request_but_what_is_echoed(slot: tuple[Interface, bytes]) -> None:
    layout, raw = slot
    event = decode(raw, layout)
    answer = encode(event, Response.plain())
    start, size = layout.payload
    echoed = {
        *range(start, start + size),
        *(i for f in layout.header.values() for i in range(f.offset, f.offset + f.size)),
    }
    outside = bytes(byte for place, byte in enumerate(answer) if place not in echoed)
    assert outside == bytes(len(outside))
    answered = decode(answer, layout)
    assert answered.vcpu_id == event.vcpu_id
    assert answered.reason_code == event.reason_code
    assert answered.flags == event.flags & Flag.VCPU_PAUSED


@given(interfaces(family="vm_event"), st.data())
def test_payload_round_trip(layout: Interface, data: st.DataObject) -> None:
    code = data.draw(st.sampled_from(sorted(layout.reasons)))
    fields = layout.payloads.get(layout.reasons[code], {})
    values = {
        name: data.draw(st.integers(0, (1 << 8 * field.size) - 1), label=name)
        for name, field in fields.items()
    }
    event = decode(make_slot(layout, code, payload=values), layout)
    named = {"flags": ("access_flags", "paging_flags"), "reason": ("exit_reason",), "value": ("new_value",)}
    for name, value in values.items():
        members = [m for m in (*named.get(name, ()), f"is_{name}", name) if m in event.__struct_fields__]
        if name == "flags":
            members = [m for m in members if m != "flags"]
        assert getattr(event, members[0]) == value


@given(interfaces(), st.data())
def test_register_round_trip(layout: Interface, data: st.DataObject) -> None:
    if not layout.registers:
        return
    values = {
        name: data.draw(st.integers(1, (1 << 8 * field.size) - 1), label=name)
        for name, field in layout.registers.items()
    }
    code = next(code for code, name in layout.reasons.items() if name == "write_ctrlreg")
    registers = decode(make_slot(layout, code, registers=values), layout).registers
    for name, field in layout.registers.items():
        if field.code == "segment":
            segment = registers.segment(name)
            assert segment.limit | segment.ar << 20 == values[name]
        else:
            assert getattr(registers, name) == values[name]


@pytest.mark.parametrize("layout", [interface(i, a) for i in INTERFACE_IDS for a in ARCHITECTURES])
def test_unknown_reasons_are_kept_raw_and_answered(layout: Interface) -> None:
    if "reason" not in layout.header:
        return
    raw = make_slot(layout, 0x7F, vcpu_id=3, paused=True)
    event = decode(raw, layout)
    assert isinstance(event, UnknownEvent)
    assert event.reason_code == 0x7F
    answered = decode(encode(event, allow(event)), layout)
    assert (answered.vcpu_id, answered.paused) == (3, True)


def test_another_version_is_kept_raw_and_answered_in_that_version() -> None:
    raw = make_slot(V7, 4, version=8, paused=True)
    event = decode(raw, V7)
    assert isinstance(event, UnknownEvent)
    assert event.version == 8
    assert decode(encode(event, allow(event)), V7).version == 8


def test_a_slot_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(DamagedInputError, match="slot of 399 bytes"):
        decode(bytes(399), V7)


def test_allow_is_per_reason() -> None:
    assert ALLOW.keys() | {"cpuid", "privileged_call"} == EVENT_TYPES.keys()


def test_cpuid_is_let_happen_by_moving_rip_past_it() -> None:
    raw = make_slot(
        V7, 10, payload={"insn_length": 2, "leaf": 1}, registers={"rip": 0x1000, "rax": 7}, paused=True
    )
    event = decode(raw, V7)
    assert isinstance(event, Cpuid)
    answer = decode(encode(event, allow(event)), V7)
    assert answer.flags == Flag.VCPU_PAUSED | Flag.SET_REGISTERS
    assert answer.registers.rip == 0x1002
    assert answer.registers.rax == 7


def test_privileged_call_is_let_happen_by_moving_pc_past_it() -> None:
    arm = interface("vm_event-7", "arm64")
    event = decode(make_slot(arm, 11, registers={"pc": 0x8000, "cpsr": 5}, paused=True), arm)
    answer = decode(encode(event, allow(event)), arm)
    assert answer.registers.pc == 0x8004
    assert answer.registers.cpsr == 5


def test_memory_access_is_let_happen_by_emulation_with_its_payload_echoed() -> None:
    payload = {"gfn": 0x104, "offset": 0x10, "gla": 0x104010, "flags": 2}
    event = decode(make_slot(V7, 1, payload=payload, paused=True), V7)
    answer = decode(encode(event, allow(event)), V7)
    assert isinstance(answer, MemAccess)
    assert answer.flags == Flag.VCPU_PAUSED | Flag.EMULATE
    assert (answer.gfn, answer.access) == (0x104, "w")


def test_emulate_has_its_own_number_in_mem_event() -> None:
    old = interface("mem_event-4.5")
    event = decode(make_slot(old, 1, paused=True), old)
    answer = decode(encode(event, allow(event)), old)
    assert answer.flag_names == ["vcpu_paused", "emulate"]


def test_data_goes_where_the_interface_has_it() -> None:
    event = decode(make_slot(V7, 1, paused=True), V7)
    answer = encode(event, Response.emulate(read_data=b"\x01\x02\x03"))
    assert answer[56:63] == struct.pack("<I", 3) + b"\x01\x02\x03"
    answer = encode(event, Response.emulate(insn_data=b"\x90" * 16))
    assert answer[56:72] == b"\x90" * 16
    answer = encode(event, Response.plain().in_view(3))
    assert struct.unpack_from("<H", answer, 16) == (3,)
    with pytest.raises(DamagedInputError, match="do not fit"):
        encode(event, Response.emulate(insn_data=bytes(17)))


def test_members_that_an_interface_lacks_are_none() -> None:
    old = interface("vm_event-1")
    event = decode(make_slot(old, 5, payload={"msr": 0x174, "value": 9}), old)
    assert isinstance(event, MovToMsr)
    assert (event.msr, event.new_value, event.old_value) == (0x174, 9, None)
    older = interface("mem_event-4.4")
    write = decode(make_slot(older, 3, payload={"gfn": 0x5000}), older)
    assert isinstance(write, WriteCtrlreg)
    assert (write.register, write.new_value, write.old_value) == ("cr3", 0x5000, None)


def test_unpause_belongs_to_no_request() -> None:
    answer = decode(unpause(V7, 5), V7)
    assert (answer.vcpu_id, answer.flags, answer.version) == (5, Flag.VCPU_PAUSED, 7)


def test_acknowledge_is_the_least_answer() -> None:
    raw = make_slot(V7, 1, payload={"gfn": 5, "flags": 1}, vcpu_id=2, paused=True)
    assert acknowledge(raw, V7) == struct.pack("<IIII", 7, 1, 1, 2) + bytes(384)
