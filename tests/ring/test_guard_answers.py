"""allow_is_per_reason: the deadline thread sends what the loop sends, byte for byte, for every interface."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from tests.slots import make_slot, slots
from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, SLOT0, Flag, Interface, interface
from xenintro.codec import decode, encode
from xenintro.events import Singlestep, UnknownEvent
from xenintro.response import allow
from xenintro.xen.guard import Guard
from xenintro.xen.ring import Ring

if TYPE_CHECKING:
    from tests.golden import GoldenPage


@cache
def guard_of(layout: Interface, **options: bool) -> Guard:
    return Guard(Ring(bytearray(4096), layout.slot_size, layout.nr_slots), layout, **options)


def of_the_loop(raw: bytes, layout: Interface) -> bytes:
    event = decode(raw, layout)
    return encode(event, allow(event))


def test_allow_is_per_reason_on_golden_slots(golden: GoldenPage) -> None:
    layout = golden.interface
    guard = guard_of(layout)
    for number in range(layout.nr_slots):
        start = SLOT0 + number * layout.slot_size
        raw = golden.page[start : start + layout.slot_size]
        assert len(raw) < layout.slot_size or guard.response(raw) == of_the_loop(raw, layout)


@given(slots())
def test_allow_is_per_reason_on_any_slot(slot: tuple[Interface, bytes]) -> None:
    layout, raw = slot
    assert guard_of(layout).response(raw) == of_the_loop(raw, layout)


@pytest.mark.parametrize("name", INTERFACE_IDS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("paused", [True, False], ids=["paused", "asynchronous"])
def test_allow_is_per_reason_in_every_interface(name: str, arch: str, paused: bool) -> None:
    layout = interface(name, arch)
    assert all(code < 31 for code in layout.reasons), "the table of the thread is too short"
    for code in (*layout.reasons, 31, 2**16 - 1):
        filling = {name: 0x1000 + at for at, name in enumerate(layout.registers) if name in ("rip", "pc")}
        raw = make_slot(layout, code, vcpu_id=5, paused=paused, registers=filling)
        assert guard_of(layout).response(raw) == of_the_loop(raw, layout)


def test_a_vcpu_that_steps_by_wish_steps_on() -> None:
    layout = interface("vm_event-7")
    code = next(code for code, name in layout.reasons.items() if name == "singlestep")
    raw = make_slot(layout, code, paused=True)
    event = decode(guard_of(layout, singlestep_always=True).response(raw), layout)
    assert isinstance(event, Singlestep)
    assert event.flags == Flag.VCPU_PAUSED
    assert decode(guard_of(layout).response(raw), layout).flags == Flag.VCPU_PAUSED | Flag.TOGGLE_SINGLESTEP


@pytest.mark.parametrize("paused", [True, False])
def test_interrupts_are_asked_for_but_not_in_answer_to_one(paused: bool) -> None:
    layout = interface("vm_event-7")
    guard = guard_of(layout, interrupts=True)
    for code in (*layout.reasons, 99):
        raw = make_slot(layout, code, paused=paused, registers={"rip": 0x1000})
        event = decode(raw, layout)
        response = allow(event)
        if paused and not isinstance(event, UnknownEvent) and event.reason != "interrupt":
            response = response.with_flags(Flag.GET_NEXT_INTERRUPT)
        if paused or layout.reasons.get(code) not in ("cpuid", "privileged_call"):  # those always wait
            assert guard.response(raw) == encode(event, response)
