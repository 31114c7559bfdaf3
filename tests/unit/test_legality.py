"""Answers that Xen would ignore are refused, with the rule that forbids them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.slots import make_slot
from xenintro.abi import Flag, interface
from xenintro.codec import decode
from xenintro.errors import IllegalResponseError
from xenintro.legality import Machine, check
from xenintro.response import Response, allow

if TYPE_CHECKING:
    from xenintro.events import Event

CODES = {name: code for code, name in interface("vm_event-7").reasons.items()}
INTEL = Machine(singlestep=True, altp2m=True, control_registers=True)
UNARMED = Machine(singlestep_armed=False, altp2m=True)
AMD = Machine(singlestep=False)


def event(
    reason: str, abi: str = "vm_event-7", *, paused: bool = True, arch: str = "x86_64", **payload: int
) -> Event:
    layout = interface(abi, arch)
    registers = {"rip": 0x1000} if arch == "x86_64" else {"pc": 0x1000}
    raw = make_slot(layout, CODES[reason], payload=payload, registers=registers, paused=paused)
    return decode(raw, layout)


LEGAL = [
    (event("write_ctrlreg", index=2), Response.deny(), INTEL),
    (event("mov_to_msr"), Response.deny(), INTEL),
    (event("write_ctrlreg", "vm_event-5", index=0), Response.deny(), AMD),
    (event("mem_access"), Response.emulate(), AMD),
    (event("mem_access"), Response.emulate(write=False), AMD),
    (event("mem_access"), Response.emulate(read_data=b"abc"), AMD),
    (event("software_breakpoint"), Response.emulate(insn_data=bytes(16)), AMD),
    (event("software_breakpoint"), Response.reinjected(), AMD),
    (event("descriptor_access"), Response.emulate(), AMD),
    (event("descriptor_access"), Response.emulate(write=False), AMD),
    (event("software_breakpoint"), Response.plain(), AMD),
    (event("cpuid"), Response.set_registers({"rax": 1, "rip": 0x1002}), AMD),
    (event("guest_request"), Response.set_registers({"rax": 1, "rip": 0x1003}), AMD),
    (event("privileged_call", arch="arm64"), Response.set_registers({"pc": 0x1004}), AMD),
    (event("singlestep"), Response.single_step(), INTEL),
    (event("mem_access"), Response.fast_singlestep(0), INTEL),
    (event("mem_access"), Response.plain().in_view(1), INTEL),
    (event("write_ctrlreg"), Response.plain().asking_next_interrupt(), AMD),
    (event("guest_request"), Response.skip(event("guest_request")), AMD),
    (event("cpuid"), Response.skip(event("cpuid", insn_length=2)), AMD),
    (event("mov_to_msr"), Response.skip(event("mov_to_msr")), INTEL),
    (event("mem_access"), Response.skip(event("mem_access"), 4), AMD),
    (event("privileged_call", arch="arm64"), Response.skip(event("privileged_call", arch="arm64")), AMD),
    (event("mem_access"), Response.step_over(), INTEL),
    (event("mem_access"), Response.inject(14, cr2=0x1000), AMD),
    (event("cpuid"), Response.inject(6), AMD),
    (event("guest_request"), Response.inject(2), AMD),
    (event("guest_request"), Response.inject(0x80, type=4, insn_length=2), AMD),
    (event("mov_to_msr"), Response.deny().with_registers({"rip": 0x1000}).injecting(13), INTEL),
    (event("write_ctrlreg"), Response.set_registers({"rip": 0x1003, "rflags": 0x202}).injecting(0x30), AMD),
]

ILLEGAL = [
    (event("mem_access"), Response.deny(), INTEL, "only for mov_to_msr, write_ctrlreg"),
    (event("write_ctrlreg", index=3), Response.deny(), INTEL, "XCR0"),
    (event("write_ctrlreg", index=2), Response.deny(), AMD, "CONTROL_REGISTERS"),
    (event("write_ctrlreg", paused=False), Response.deny(), INTEL, "asynchronous"),
    (event("write_ctrlreg"), Response.emulate(), INTEL, "only for"),
    (event("software_breakpoint"), Response.emulate(), INTEL, "instruction bytes"),
    (event("software_breakpoint"), Response.emulate(insn_data=bytes(3)), INTEL, "16 bytes"),
    (event("software_breakpoint", "vm_event-1"), Response.emulate(insn_data=bytes(16)), INTEL, "has no"),
    (event("mem_access"), Response.set_registers({"cr3": 1}), INTEL, "takes no cr3"),
    (event("cpuid"), Response.set_registers({"rax": 1}), INTEL, "for ever"),
    (event("privileged_call", arch="arm64"), Response.emulate(), INTEL, "no effect on arm64"),
    (event("singlestep"), Response.single_step(), AMD, "monitor trap flag"),
    (event("mem_access"), Response.plain().in_view(1), AMD, "altp2m"),
    (event("mem_access", "vm_event-5"), Response.fast_singlestep(0), INTEL, "has no response flag"),
    (
        event("mem_access"),
        Response.set_registers({"rip": 1}).with_flags(Flag.EMULATE | Flag.SET_EMUL_READ_DATA),
        INTEL,
        "shares its place",
    ),
    (event("guest_request"), Response.reinjected(), INTEL, "carries a trap"),
    (event("debug_exception", paused=False), Response.reinjected(), INTEL, "synchronous"),
    (event("cpuid"), Response.plain(), INTEL, "for ever"),
    (event("descriptor_access"), Response.plain(), INTEL, "for ever"),
    (event("mem_access"), Response.emulate(insn_data=bytes(16)), INTEL, "only for software_breakpoint"),
    (event("mem_access"), Response.emulate(write=False, read_data=b"a"), INTEL, "shares its place"),
    (event("mem_access"), Response.emulate(read_data=bytes(341)), INTEL, "340 bytes"),
    (event("mem_access"), Response.set_registers({"rip": -1}), INTEL, "64 bits"),
    (event("mem_access"), Response.plain().in_view(70000), INTEL, "16 bits"),
    (event("mem_access"), Response.plain().with_flags(Flag.SET_REGISTERS), INTEL, "go together"),
    (event("mem_access", "vm_event-7-4.17"), Response.fast_singlestep(0), UNARMED, "4.19"),
    (event("io_instruction"), Response.set_registers({"rax": 1}), INTEL, "for ever"),
    (event("write_ctrlreg"), Response.single_step(), UNARMED, "not trapped"),
    (event("mem_access", "vm_event-7-4.17"), Response.switch_view(10), INTEL, "10 views"),
    (event("write_ctrlreg"), Response.step_over(), INTEL, "a page to open"),
    (event("mem_access"), Response.step_over().in_view(1), INTEL, "nothing else"),
    (event("mem_access"), Response.step_over(), AMD, "monitor trap flag"),
    (event("mem_access"), Response.inject(0x30), INTEL, "interrupts off"),
    (event("mem_access"), Response.inject(13, type=6, insn_length=1), INTEL, "has vector 13"),
    (event("mem_access"), Response.inject(6, error_code=0), INTEL, "without an error code"),
    (event("mem_access"), Response.inject(13, cr2=1), INTEL, "has an address"),
    (event("mem_access"), Response.inject(3), INTEL, "1 to 15 bytes"),
    (event("mem_access"), Response.inject(14, cr2=-1), INTEL, "64"),
    (event("mem_access"), Response.inject(300, type=0), INTEL, "has vector 300"),
    (event("software_breakpoint"), Response.reinjected().injecting(6), INTEL, "one trap at a time"),
    (event("guest_request", paused=False), Response.inject(6), INTEL, "asynchronous"),
    (event("privileged_call", arch="arm64"), Response.inject(6), INTEL, "x86 only"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "response", "machine"), LEGAL)
def test_legal(event: Event, response: Response, machine: Machine) -> None:
    check(event, response, machine)


@pytest.mark.parametrize(("event", "response", "machine", "rule"), ILLEGAL)
def test_refused(event: Event, response: Response, machine: Machine, rule: str) -> None:
    with pytest.raises(IllegalResponseError) as refusal:
        check(event, response, machine)
    assert rule in refusal.value.why
    assert refusal.value.exit_code == 8


@pytest.mark.parametrize("reason", ["mem_access", "descriptor_access", "singlestep", "interrupt"])
def test_an_instruction_of_unknown_length_cannot_be_skipped(reason: str) -> None:
    with pytest.raises(IllegalResponseError, match="skip"):
        Response.skip(event(reason))


@pytest.mark.parametrize("reason", sorted(set(CODES) - {"unknown", "privileged_call"}))
@pytest.mark.parametrize("abi", [f"vm_event-{version}" for version in range(1, 8)])
def test_what_allow_sends_is_always_legal(reason: str, abi: str) -> None:
    if reason not in interface(abi).reasons.values() or reason == "io_instruction":
        return  # nothing lets an I/O instruction happen: it is never trapped
    happening = event(reason, abi, **({"insn_length": 2} if reason == "cpuid" else {}))
    check(happening, allow(happening), INTEL)
