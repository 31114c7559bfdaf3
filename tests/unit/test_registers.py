"""Absent is not zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.slots import make_slot
from xenintro.abi import Interface, interface
from xenintro.codec import decode
from xenintro.errors import RegisterNotProvidedError
from xenintro.sinks.jsonl import event_record

if TYPE_CHECKING:
    from xenintro.registers import Registers

NOT_IN_HVM_FILL = {
    *("dr7", "cr2", "sysenter_cs", "sysenter_esp", "sysenter_eip"),
    *("msr_star", "msr_lstar", "fs_base", "gs_base", "cs_arbytes"),
}


def registers(layout: Interface, reason: str, **values: int) -> Registers:
    code = next(code for code, name in layout.reasons.items() if name == reason)
    return decode(make_slot(layout, code, registers=values), layout).registers


def absent(layout: Interface, reason: str) -> set[str]:
    return {name for name, value in registers(layout, reason).items() if value is None}


@pytest.mark.parametrize(
    ("abi", "reason", "expected"),
    [
        ("mem_event-rfc3", "write_ctrlreg", NOT_IN_HVM_FILL),
        ("mem_event-rfc3", "mem_access", set()),
        ("mem_event-4.5", "mov_to_msr", NOT_IN_HVM_FILL),
        ("vm_event-1-4.6", "guest_request", NOT_IN_HVM_FILL),
        ("vm_event-1-4.6", "mem_access", set()),
        ("vm_event-1-4.7", "write_ctrlreg", set()),
        ("vm_event-1", "write_ctrlreg", NOT_IN_HVM_FILL),
        ("vm_event-3", "cpuid", set()),
        ("vm_event-4", "write_ctrlreg", {"dr6"}),
        ("vm_event-7", "mem_access", {"dr6"}),
    ],
)
def test_the_table_of_fills(abi: str, reason: str, expected: set[str]) -> None:
    assert absent(interface(abi), reason) == expected


def test_absent_is_none_and_raises_and_null() -> None:
    layout = interface("mem_event-rfc3")
    snapshot = registers(layout, "write_ctrlreg", rip=0x1000)
    assert snapshot.get("cr2") is None
    with pytest.raises(RegisterNotProvidedError, match="cr2"):
        _ = snapshot.cr2
    assert snapshot.rip == 0x1000
    assert snapshot.rax == 0
    record = event_record(decode(make_slot(layout, 3, registers={"rip": 0x1000}), layout))
    assert record["regs"]["cr2"] is None
    assert record["regs"]["rax"] == "0x0"


def test_bytes_win_over_the_table() -> None:
    assert registers(interface("vm_event-7"), "cpuid", dr6=0xFFFF0FF0).dr6 == 0xFFFF0FF0


def test_no_registers_travel_with_paging() -> None:
    layout = interface("vm_event-7")
    assert absent(layout, "mem_paging") == set(layout.registers)


def test_a_register_that_the_interface_lacks() -> None:
    with pytest.raises(RegisterNotProvidedError, match="shadow_gs"):
        _ = registers(interface("vm_event-3"), "cpuid").shadow_gs
    with pytest.raises(RegisterNotProvidedError):
        registers(interface("vm_event-3"), "cpuid").segment("cs")
    with pytest.raises(RegisterNotProvidedError):
        _ = registers(interface("vm_event-7"), "cpuid").ttbr0
