"""What each answer does to the guest, by reason and interface version (semantics of vm_event_resume)."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.sim.host import Host, Monitor
from xenintro.abi import Flag
from xenintro.response import Response, allow
from xenintro.sim.p2m import RX

VERSIONS = range(1, 8)
PAGE = 0x400


class Case(NamedTuple):
    """One reason: how to make it happen, and whether a plain answer lets the guest get past it."""

    op: dict[str, Any]
    arm: tuple[Any, ...]
    plain_passes: bool
    since: int = 1
    release: str | None = None
    allow_passes: bool = True


CASES = {
    "mem_access": Case({"do": "write", "gfn": PAGE}, ("xc_set_mem_access", RX, PAGE, 1), plain_passes=False),
    "write_ctrlreg": Case({"do": "cr3", "values": [0x5000, 0x6000]}, ("cr3",), plain_passes=True),
    "mov_to_msr": Case({"do": "wrmsr", "msr": "tsc_aux", "values": [5, 6]}, ("msr",), plain_passes=True),
    "software_breakpoint": Case({"do": "int3"}, ("xc_monitor_software_breakpoint", 1), plain_passes=False),
    "guest_request": Case({"do": "guest_request"}, ("xc_monitor_guest_request", 1, 1), plain_passes=True),
    "debug_exception": Case(
        {"do": "icebp"}, ("xc_monitor_debug_exceptions", 1, 1), plain_passes=False, since=2
    ),
    "cpuid": Case({"do": "cpuid", "leaves": [1]}, ("xc_monitor_cpuid", 1), plain_passes=False, since=2),
    "descriptor_access": Case(
        {"do": "lgdt"}, ("xc_monitor_descriptor_access", 1), plain_passes=False, since=2
    ),
    "vmexit": Case(
        {"do": "cpuid"}, ("xc_monitor_vmexit", 1, 1), plain_passes=False, since=7, allow_passes=False
    ),
    "io_instruction": Case(
        {"do": "out"},
        ("xc_monitor_io", 1),
        plain_passes=False,
        since=7,
        release="4.18",
        allow_passes=False,
    ),
}


def arm(host: Host, call: str, *arguments: int, sync: int = 1) -> None:
    """Switch a trap on, with the arguments that this release's libxc passes."""
    release = host.machine.release
    if call == "cr3":
        mask = (0,) if release >= (4, 10) else ()
        host.call("xc_monitor_write_ctrlreg", 1, 1, 1, sync, *mask, 0)
    elif call == "msr":
        msr = (1, 1) if release < (4, 8) else (0xC0000103, 1, 0)
        host.call("xc_monitor_mov_to_msr", 1, *msr)
    else:
        host.call(call, 1, *arguments)


def set_up(reason: str, version: int) -> tuple[Host, Monitor]:
    case = CASES[reason]
    host = Host([case.op], version=version, release=case.release)
    monitor = Monitor(host)
    arm(host, *case.arm)
    host.run()
    return host, monitor


def reasons(version: int) -> list[str]:
    return [reason for reason, case in CASES.items() if case.since <= version]


PAIRS = [(reason, version) for version in VERSIONS for reason in reasons(version)]


@pytest.mark.parametrize(("reason", "version"), PAIRS)
def test_event_pauses_the_vcpu_and_says_what_happened(reason: str, version: int) -> None:
    host, monitor = set_up(reason, version)

    event = monitor.event()

    assert event.reason == reason
    assert event.paused
    assert event.vcpu_id == 0
    assert event.version == version
    assert host.vcpu.stopped
    insn = host.domain.program.at[event.registers.rip]
    assert insn.kind == CASES[reason].op["do"], "rip is that of the trapping instruction"


@pytest.mark.parametrize(("reason", "version"), PAIRS)
@pytest.mark.parametrize("answer", ["plain", "allow"])
def test_effect_of_the_answer(reason: str, version: int, answer: str) -> None:
    host, monitor = set_up(reason, version)
    first = monitor.event()
    retired = host.vcpu.retired

    monitor.answer(first, allow(first) if answer == "allow" else Response.plain())
    host.run()

    case = CASES[reason]
    passes = case.allow_passes if answer == "allow" else case.plain_passes
    second = monitor.event()
    others = host.vcpu.retired - retired > 1 or any(host.vcpu.traps.values())
    assert others == passes, "other instructions ran exactly if the answer lets this one pass"
    assert second.registers.rip == first.registers.rip
    assert host.machine.answered == 1
    assert not set(host.broken()) - {"ring-left", "vcpu-left-frozen", "access-left"}


@pytest.mark.parametrize("version", VERSIONS)
def test_emulate_writes_and_keeps_the_permission(version: int) -> None:
    host, monitor = set_up("mem_access", version)
    event = monitor.event()
    assert event.access == "w"
    assert event.gfn == PAGE
    assert event.gla_valid

    monitor.answer(event, Response.emulate())
    host.run(1)

    assert host.domain.memory[PAGE << 12] == 1
    assert host.domain.host.access[PAGE] == RX


@pytest.mark.parametrize("version", VERSIONS)
def test_emulate_nowrite_executes_without_writing(version: int) -> None:
    host, monitor = set_up("mem_access", version)
    event = monitor.event()

    monitor.answer(event, Response.emulate(write=False))
    host.run(1)

    assert host.domain.memory[PAGE << 12] == 0
    assert not monitor.requests(), "it was executed, not tried again"


@pytest.mark.parametrize("version", VERSIONS)
def test_emulate_is_ignored_where_the_page_was_opened(version: int) -> None:
    host, monitor = set_up("mem_access", version)
    event = monitor.event()
    host.call("xc_set_mem_access", 1, 7, PAGE, 1)

    monitor.answer(event, Response.emulate())

    assert not host.vcpu.event.emulate
    host.run(2)
    assert host.domain.memory[PAGE << 12] == 1, "the access is tried again and passes"


def test_emulated_read_returns_other_data() -> None:
    host = Host([{"do": "read", "gfn": PAGE}])
    monitor = Monitor(host)
    host.domain.memory[PAGE << 12] = 0x11
    host.call("xc_set_mem_access", 1, 4, PAGE, 1)
    host.run()

    monitor.answer(monitor.event(), Response.emulate(read_data=b"\x42"))
    host.run(1)

    assert host.vcpu.regs["rax"] == 0x42


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6, 7])
def test_planted_breakpoint_is_stepped_over_with_the_original_bytes(version: int) -> None:
    host = Host([{"do": "nop"}, {"do": "cr3", "values": [0x7000]}], version=version)
    monitor = Monitor(host)
    arm(host, "xc_monitor_software_breakpoint", 1)
    insn = next(insn for insn in host.domain.program.insns if insn.kind == "cr3")
    host.domain.memory[insn.offset] = 0xCC
    host.run()
    event = monitor.event()
    assert event.registers.rip == insn.rip

    monitor.answer(event, Response.emulate(insn_data=insn.code.ljust(16, b"\x90")))
    host.run(1)

    assert host.vcpu.regs["cr3"] == 0x7000
    assert not host.vcpu.traps


@pytest.mark.parametrize("version", VERSIONS)
def test_set_registers_with_the_same_rip_executes_again(version: int) -> None:
    host, monitor = set_up("guest_request", version)
    first = monitor.event()

    for _ in range(70):
        monitor.answer(first, Response.set_registers({}))
        host.run()
        assert monitor.event().registers.rip == first.registers.rip

    assert "endless-loop" in host.broken()


@pytest.mark.parametrize("version", VERSIONS)
def test_control_register_write_is_reported_before_it_happens(version: int) -> None:
    host, monitor = set_up("write_ctrlreg", version)

    event = monitor.event()

    assert (event.old_value, event.new_value) == (0x101000, 0x5000)
    assert event.registers.cr3 == 0x101000
    deferred = version <= 5  # 985ba41f66 (4.14) does it at once
    assert host.vcpu.regs["cr3"] == (0x101000 if deferred else 0x5000)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("reason", ["write_ctrlreg", "mov_to_msr"])
def test_deny_cancels_the_write_up_to_4_13_only(reason: str, version: int) -> None:
    host, monitor = set_up(reason, version)
    event = monitor.event()

    monitor.answer(event, Response.deny())
    host.run(1)

    now = host.vcpu.regs["cr3"] if reason == "write_ctrlreg" else host.vcpu.msrs.get(0xC0000103, 0)
    new = event.new_value
    assert (now != new) == (version <= 5)
    assert ("flag-ignored" in host.broken()) == (version >= 6)


@pytest.mark.parametrize("version", [6, 7])
def test_deny_works_once_control_registers_was_issued(version: int) -> None:
    host = Host([{"do": "cr3", "values": [0x5000]}], version=version)
    monitor = Monitor(host)
    interface = {6: 0x12, 7: 0x15}[version]
    domctl = (77).to_bytes(4, "little") + interface.to_bytes(4, "little") + (1).to_bytes(8, "little")
    host.call("xencall1", 36, data=domctl + (4).to_bytes(4, "little") + bytes(124))
    arm(host, "cr3")
    host.run()

    monitor.answer(monitor.event(), Response.deny())
    host.run(1)

    assert host.vcpu.regs["cr3"] == 0x101000
    assert "flag-ignored" not in host.broken()


def test_cpuid_answered_plainly_executes_with_its_own_results() -> None:
    host, monitor = set_up("cpuid", 7)
    first = monitor.event()
    assert (first.leaf, first.insn_length) == (1, 2)
    assert first.registers.rax == 0x306C3, "the registers hold the results"

    for _ in range(70):
        monitor.answer(monitor.event() if _ else first, Response.plain())
        host.run()

    assert monitor.event().leaf != 1
    assert "endless-loop" in host.broken()


def test_reinjected_breakpoint_reaches_the_guest_once() -> None:
    host, monitor = set_up("software_breakpoint", 7)
    event = monitor.event()

    monitor.answer(event, Response.reinjected())
    host.run()

    assert host.vcpu.traps == {3: 1}
    assert host.fails("xc_hvm_inject_trap", 1, 9, 3, 6, 0xFFFFFFFF, 1, 0) == 22


def test_second_injection_is_busy() -> None:
    host, _monitor = set_up("software_breakpoint", 7)
    host.call("xc_hvm_inject_trap", 1, 0, 3, 6, 0xFFFFFFFF, 1, 0)

    assert host.fails("xc_hvm_inject_trap", 1, 0, 3, 6, 0xFFFFFFFF, 1, 0) == 16


def test_asynchronous_debug_exception_is_injected_by_xen() -> None:
    host = Host([{"do": "icebp"}], rounds=1)
    monitor = Monitor(host)
    host.call("xc_monitor_debug_exceptions", 1, 1, 0)

    host.run()

    assert not monitor.event().paused
    assert host.vcpu.traps == {1: 1}


def test_lost_hardware_debug_exception() -> None:
    host = Host([{"do": "hwdb"}], rounds=1)
    monitor = Monitor(host)
    host.call("xc_monitor_debug_exceptions", 1, 1, 1)
    host.run()
    event = monitor.event()
    assert (event.type, event.insn_length) == (3, 0)

    monitor.answer(event)
    host.run()

    assert host.vcpu.halted
    assert not host.vcpu.traps, "a plain answer loses the #DB"


def test_singlestep_goes_on_until_toggled_and_blocks_interrupts() -> None:
    host = Host([{"do": "interrupt"}, {"do": "guest_request"}, {"do": "nop", "times": 3}])
    monitor = Monitor(host)
    host.call("xc_monitor_guest_request", 1, 1, 1)
    host.call("xc_monitor_singlestep", 1, 1)
    host.run()
    delivered = host.vcpu.interrupts

    monitor.answer(monitor.event(), Response.single_step())
    host.run()
    for _ in range(30):
        event = monitor.event()
        monitor.answer(event)  # singlestep or guest_request: the vCPU goes on stepping
        host.run()

    assert host.vcpu.interrupts == delivered
    assert host.vcpu.pending_interrupts
    assert "singlestep-left" in host.broken()
    host.call("xc_domain_debug_control", 1, 0, 0)
    monitor.answer(monitor.event())
    host.run()
    assert host.vcpu.interrupts > delivered


def test_next_interrupt_is_reported_once() -> None:
    host = Host([{"do": "guest_request"}, {"do": "interrupt"}])
    monitor = Monitor(host)
    host.call("xc_monitor_guest_request", 1, 1, 1)
    host.run()
    monitor.answer(monitor.event(), Response.plain().with_flags(Flag.GET_NEXT_INTERRUPT))
    host.run()

    event = monitor.event()
    assert (event.reason, event.vector) == ("interrupt", 0xEF)
    assert host.vcpu.interrupts == 0
    monitor.answer(event)
    host.run()

    assert host.vcpu.interrupts == 1
    assert monitor.event().reason == "guest_request"


def test_reinjected_trap_is_the_next_interrupt() -> None:
    host, monitor = set_up("software_breakpoint", 7)
    first = monitor.event()
    monitor.answer(first, Response.reinjected().with_flags(Flag.GET_NEXT_INTERRUPT))
    host.run()

    event = monitor.event()
    assert (event.reason, event.vector, event.type) == ("interrupt", 3, 6)
    assert not host.vcpu.traps
    monitor.answer(event)
    host.run(1)
    assert host.vcpu.traps == {3: 1}


@pytest.mark.parametrize("enabled", [False, True])
def test_instruction_that_the_emulator_does_not_know(enabled: bool) -> None:
    host = Host([{"do": "exotic", "gfn": PAGE}])
    monitor = Monitor(host)
    host.call("xc_set_mem_access", 1, RX, PAGE, 1)
    if enabled:
        host.call("xc_monitor_emul_unimplemented", 1, 1)
    host.run()

    monitor.answer(monitor.event(), Response.emulate())
    host.run(4)

    event = monitor.event()
    assert event.reason == ("emul_unimplemented" if enabled else "mem_access")
    assert host.vcpu.traps == ({} if enabled else {6: 1})


def test_fast_singlestep_steps_in_a_view_without_an_event() -> None:
    host = Host([{"do": "write", "gfn": PAGE}, {"do": "nop"}])
    monitor = Monitor(host)
    host.call("xc_altp2m_set_domain_state", 1, 1)
    host.call("xc_altp2m_create_view", 1, 7)
    host.call("xc_altp2m_set_mem_access", 1, 1, PAGE, RX)
    host.call("xc_altp2m_switch_to_view", 1, 1)
    host.call("xc_monitor_singlestep", 1, 1)
    host.run()
    event = monitor.event()
    assert event.altp2m_idx == 1

    monitor.answer(event, Response.fast_singlestep(1).in_view(0))
    host.run()

    second = monitor.event()
    assert second.reason == "mem_access"
    assert host.domain.memory[PAGE << 12] == 1
    assert host.vcpu.view == 1


@pytest.mark.parametrize("version", [1, 2, 3, 7])
@pytest.mark.parametrize(("mask", "new", "once"), [(0, 0x101000, True), (0xF000, 0x105000, True)])
def test_bitmask_by_release(version: int, mask: int, new: int, once: bool) -> None:
    host = Host([{"do": "cr3", "values": [new]}], version=version, rounds=1)
    monitor = Monitor(host)
    masks = (mask,) if host.machine.release >= (4, 10) else ()
    host.call("xc_monitor_write_ctrlreg", 1, 1, 1, 1, *masks, 0)
    host.run()

    seen = bool(monitor.requests())

    changed = bool((new ^ 0x101000) & mask)
    expected = {1: True, 2: not changed}.get(version, bool((new ^ 0x101000) & ~mask))
    assert seen == expected == (seen and once)


def test_registers_that_a_release_leaves_out_are_zero() -> None:
    old = Host([{"do": "guest_request"}], version=1, release="4.6")
    monitor = Monitor(old)
    old.call("xc_monitor_guest_request", 1, 1, 1)
    old.run()
    registers = monitor.event().registers
    assert registers.get("msr_lstar") is None
    assert registers.cr4 == 0x6A0

    new, monitor = set_up("guest_request", 7)
    registers = monitor.event().registers
    assert registers.msr_lstar == new.vcpu.regs["msr_lstar"]
    assert registers.get("dr6") is None
    assert registers.segment("cs").ar >> 9 & 1, "64-bit code"
