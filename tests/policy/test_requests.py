"""Requests made of fields: what a JSON line says comes back from the slot that is made of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.slots import make_slot, slots
from xenintro.abi import Interface, interface
from xenintro.codec import decode
from xenintro.errors import UsageError
from xenintro.events import MemAccess, MovToMsr, UnknownEvent, WriteCtrlreg
from xenintro.policy.requests import fields_of_line, make_request
from xenintro.sinks.jsonl import event_record

V7 = interface("vm_event-7")


@settings(deadline=None)
@given(slots())
def test_a_json_line_and_back(slot: tuple[Interface, bytes]) -> None:
    layout, raw = slot
    event = decode(raw, layout)
    if isinstance(event, UnknownEvent) or not layout.reasons:
        return
    line = event_record(event)
    line["flags"] = [name for name in line["flags"] if not name.startswith("bit")]
    again = event_record(decode(make_request(layout, event.reason, fields_of_line(line)), layout))
    assert again == line


@pytest.mark.parametrize("abi", ["mem_event-4.2", "mem_event-rfc3", "vm_event-1", "vm_event-7"])
def test_names_stand_for_numbers(abi: str) -> None:
    layout = interface(abi)
    event = decode(make_request(layout, "write_ctrlreg", {"register": "cr4", "new_value": "0x20"}), layout)
    assert isinstance(event, WriteCtrlreg)
    assert event.register == "cr4"
    assert event.paused


def test_fields() -> None:
    event = decode(make_request(V7, "mov_to_msr", {"msr": "LSTAR", "old_value": 1, "rip": "0x10"}), V7)
    assert isinstance(event, MovToMsr)
    assert (event.register, event.old_value, event.new_value, event.registers.rip) == ("lstar", 1, 0, 0x10)
    access = {"access": "rw", "gla_valid": True, "gfn": 5, "vcpu_id": 3, "flags": []}
    event = decode(make_request(V7, "mem_access", access), V7)
    assert isinstance(event, MemAccess)
    assert (event.access, event.gla_valid, event.fault_in_gpt, event.gfn) == ("rw", True, False, 5)
    assert (event.vcpu_id, event.paused) == (3, False)


def test_it_is_the_slot_that_xen_would_write() -> None:
    made = make_request(V7, "cpuid", {"leaf": 1, "subleaf": 2, "insn_length": 2, "rax": 7, "vcpu_id": 1})
    assert made == make_slot(
        *(V7, 10),
        vcpu_id=1,
        payload={"leaf": 1, "subleaf": 2, "insn_length": 2},
        registers={"rax": 7},
        paused=True,
    )


@pytest.mark.parametrize(
    ("reason", "values", "words"),
    [
        ("cpuid", {"laef": 1}, "did you mean leaf?"),
        ("cpuid", {"leaf": "one"}, "not a number"),
        ("cpuid", {"leaf": True}, "not a number"),
        ("cpuid", {"leaf": 1 << 32}, "does not fit"),
        ("cpuid", {"leaf": [1]}, "not a number"),
        ("mem_access", {"access": "q"}, "is not a value of it"),
        ("mem_access", {"flags": ["no_such"]}, "is not a value of it"),
        ("mov_to_msr", {"msr": "lstra"}, "not a number"),
        ("mem_acess", {}, "has no mem_acess"),
    ],
)
def test_what_is_no_field(reason: str, values: dict, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_request(V7, reason, values)
    assert words in " ".join(caught.value.lines())
