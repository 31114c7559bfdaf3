"""Every answer to every reason in every interface version: legal and with its effect, or refused and without.

The table here says what the semantics are (vm_event_resume and what it calls, xen/common/vm_event.c and
arch/x86/vm_event.c); `xenintro.legality` and the simulated Xen, which do not know each other, must agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.sim.host import Host, Monitor
from tests.sim.test_reasons import CASES as TRAPPED
from tests.sim.test_reasons import PAGE, VERSIONS, Case, arm
from xenintro import legality
from xenintro.codec import encode
from xenintro.errors import IllegalResponseError
from xenintro.response import Response, allow
from xenintro.sim.p2m import RX

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.events import Event

_X, _RWX = 4, 7
_PARAM_ALTP2M = 35
_NEW, _DATA, _VECTOR, _VIEW = 0x7777, 0x42, 13, 1

CASES: dict[str, Case] = {
    **TRAPPED,
    "singlestep": Case({"do": "nop"}, (), plain_passes=True),
    "interrupt": Case({"do": "nop"}, (), plain_passes=True, since=2),
    "emul_unimplemented": Case(
        {"do": "exotic", "gfn": PAGE},
        ("xc_monitor_emul_unimplemented", 1),
        plain_passes=False,
        since=2,
        allow_passes=False,
    ),
}


class Trial:
    """One event on a host where everything is armed that answers need, and what became of it."""

    def __init__(self, reason: str, version: int, op: dict[str, Any] | None = None) -> None:
        case = CASES[reason]
        self.reason, self.case = reason, case
        self.host = Host([op or case.op, {"do": "nop"}], version=version, release=case.release)
        self.monitor = Monitor(self.host)
        self.vcpu = self.host.vcpu
        self._provide(version)
        if reason == "mem_access":
            access = _X if op else RX
            self.host.call("xc_set_mem_access", 1, access, PAGE, 1)
        elif case.arm:
            arm(self.host, *case.arm)
        self.event = self._happening()
        self.insn = self.host.domain.program.at[self.event.registers.rip]
        self.before = dict(self.vcpu.regs)
        self.retired = self.vcpu.retired

    def _provide(self, version: int) -> None:
        host = self.host
        host.domain.params[_PARAM_ALTP2M] = 2
        host.call("xc_altp2m_set_domain_state", 1, 1)
        host.call("xc_altp2m_create_view", 1, _RWX)
        host.call("xc_monitor_singlestep", 1, 1)
        host.domain.monitor.control_register_values = version >= 6

    def _happening(self) -> Event:
        host, reason = self.host, self.reason
        if reason == "singlestep":
            host.call("xc_domain_debug_control", 1, 1, 0)
        elif reason == "interrupt":
            self.vcpu.next_interrupt = True
            self.vcpu.pending_interrupts.append(0x50)
        elif reason == "emul_unimplemented":
            host.call("xc_set_mem_access", 1, RX, PAGE, 1)
            host.run()
            self.monitor.answer(self.monitor.event(), Response.emulate())
        host.run()
        event = self.monitor.event()
        assert event.reason == reason
        return event

    @property
    def machine(self) -> legality.Machine:
        monitor = self.host.domain.monitor
        return legality.Machine(
            singlestep_armed=monitor.singlestep,
            altp2m=self.host.domain.altp2m,
            control_registers=monitor.control_register_values,
        )

    def answer(self, response: Response) -> None:
        if response.injection is not None:
            trap = response.injection
            code = 0xFFFFFFFF if trap.error_code is None else trap.error_code
            values = (trap.vector, trap.type, code, trap.insn_length, trap.extra)
            self.host.call("xc_hvm_inject_trap", 1, 0, *values)
        self.monitor.answer(self.event, response)
        self.toggled = self.vcpu.single_step
        self.emulates = bool(self.vcpu.event.emulate)
        self.view_at_once, self.steps_to = self.vcpu.view, self.vcpu.fast_step_view
        self.host.run(1)

    @property
    def written(self) -> int:
        """What the instruction would write, wherever that is."""
        if self.reason == "write_ctrlreg":
            return self.vcpu.regs["cr3"]
        if self.reason == "mov_to_msr":
            return self.vcpu.msrs.get(self.event.msr, 0)
        return self.host.domain.memory[PAGE << 12]

    @property
    def passed(self) -> bool:
        """The guest is behind the instruction, or in its handler for what the instruction raises."""
        return self.vcpu.regs["rip"] != self.event.registers.rip or bool(self.vcpu.traps)


def _moved(trial: Trial) -> bool:
    return trial.vcpu.regs["rip"] == trial.insn.end or trial.vcpu.retired > trial.retired


def _allowed(trial: Trial) -> bool:
    return trial.passed == trial.case.allow_passes


def _plain(trial: Trial) -> bool:
    return trial.passed == trial.case.plain_passes


def _denied(trial: Trial) -> bool:
    new = getattr(trial.event, "new_value", None)
    return new is not None and trial.written != new and _moved(trial)


def _emulated(trial: Trial) -> bool:
    done = trial.written == 1 and trial.host.domain.host.access[PAGE] == RX
    return trial.emulates and _moved(trial) and (done or trial.reason != "mem_access")


def _emulated_without_write(trial: Trial) -> bool:
    return trial.emulates and _moved(trial) and trial.written == 0


def _read_other_data(trial: Trial) -> bool:
    return trial.emulates and trial.vcpu.regs["rax"] == _DATA


def _other_insn_executed(trial: Trial) -> bool:
    return trial.emulates and _moved(trial) and not trial.vcpu.traps


def _registers_set(trial: Trial) -> bool:
    return trial.vcpu.regs["rbx"] == _NEW and _moved(trial)


def _skipped(trial: Trial) -> bool:
    if trial.reason in ("write_ctrlreg", "mov_to_msr"):
        return _denied(trial)
    return _moved(trial) and not trial.vcpu.traps and trial.written == 0


def _reported(trial: Trial) -> bool:
    """The interrupt that was pending came as an event before it was delivered."""
    trial.host.run()
    events = trial.monitor.events()
    return bool(events) and events[0].reason == "interrupt"


class Answer(NamedTuple):
    """An answer, where it is legal (reason and first version), and how one sees that it has its effect."""

    build: Callable[[Trial], Response]
    legal: dict[str, int]
    effect: Callable[[Trial], bool]
    op: dict[str, Any] | None = None  # another instruction for the accesses


#: A plain answer executes these again, for ever.
_REPEATED = {"cpuid", "descriptor_access", "io_instruction"}
_EVERYWHERE = dict.fromkeys(CASES, 1)
_PLAIN = dict.fromkeys(set(CASES) - _REPEATED, 1)
_WRITES = {"write_ctrlreg": 1, "mov_to_msr": 1}
_ACCESSES = {"mem_access": 1, "descriptor_access": 2}

ANSWERS = {
    "plain": Answer(lambda _: Response.plain(), _PLAIN, _plain),
    "allow": Answer(
        lambda trial: allow(trial.event),
        dict.fromkeys(set(CASES) - {"io_instruction"}, 1),
        _allowed,
    ),
    "deny": Answer(lambda _: Response.deny(), _WRITES, _denied),
    "emulate": Answer(lambda _: Response.emulate(), _ACCESSES, _emulated),
    "emulate-nowrite": Answer(lambda _: Response.emulate(write=False), _ACCESSES, _emulated_without_write),
    "emulate-read": Answer(
        lambda _: Response.emulate(read_data=bytes([_DATA])),
        _ACCESSES,
        _read_other_data,
        {"do": "read", "gfn": PAGE},
    ),
    "emulate-insn": Answer(
        lambda _: Response.emulate(insn_data=b"\x90" * 16),
        {"software_breakpoint": 2},
        _other_insn_executed,
    ),
    "set-registers": Answer(
        lambda trial: Response.set_registers({"rbx": _NEW, "rip": trial.insn.end}),
        _EVERYWHERE,
        _registers_set,
    ),
    "skip": Answer(
        lambda trial: Response.skip(trial.event, trial.insn.end - trial.insn.rip), _EVERYWHERE, _skipped
    ),
    "single-step": Answer(
        lambda _: Response.single_step(),
        _PLAIN,
        lambda trial: trial.toggled != (trial.reason == "singlestep"),
    ),
    "fast-singlestep": Answer(
        lambda _: Response.fast_singlestep(_VIEW),
        dict.fromkeys(_PLAIN, 6),
        lambda trial: trial.steps_to == _VIEW,
    ),
    "switch-view": Answer(
        lambda _: Response.switch_view(_VIEW), _PLAIN, lambda trial: trial.view_at_once == _VIEW
    ),
    "inject": Answer(
        lambda _: Response.inject(_VECTOR),
        dict.fromkeys(set(CASES) - {"interrupt"}, 1),
        lambda trial: trial.vcpu.traps.get(_VECTOR) == 1,
    ),
    "reinject": Answer(
        lambda _: Response.reinjected(),
        {"software_breakpoint": 1, "debug_exception": 1},
        lambda trial: list(trial.vcpu.traps.values()) == [1],
    ),
    "next-interrupt": Answer(
        lambda trial: Response.next_interrupt(trial.event),
        dict.fromkeys(set(CASES) - {"io_instruction", "interrupt"}, 2),
        _reported,
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ANSWERS)
def test_legal_with_its_effect_or_refused_without(name: str, version: int) -> None:
    for reason, case in CASES.items():
        if case.since <= version:
            _try(name, reason, version)


def _try(name: str, reason: str, version: int) -> None:
    answer = ANSWERS[name]
    trial = Trial(reason, version, answer.op if reason == "mem_access" else None)
    if name == "next-interrupt":
        trial.vcpu.pending_interrupts.append(0x60)
    response = answer.build(trial)
    since = answer.legal.get(reason)
    if since is not None and version >= since:
        legality.check(trial.event, response, trial.machine)
        trial.answer(response)
        assert answer.effect(trial), f"{name} of {reason} has no effect"
        kept = {
            "ring-left",
            "vcpu-left-frozen",
            "access-left",
            "views-left",
            "singlestep-left",
            "endless-loop",
        }
        assert not set(trial.host.broken()) - kept, reason
        return
    with pytest.raises(IllegalResponseError) as refusal:
        legality.check(trial.event, response, trial.machine)
    assert refusal.value.why, reason
    if response.reinject:
        return  # there is no trap of the event's own to inject
    encode(trial.event, response)
    trial.answer(response)
    if "for ever" in refusal.value.why:
        trial.host.run()
        assert trial.monitor.events()[-1].registers.rip == trial.insn.rip, "it was executed again"
    else:
        assert not answer.effect(trial), f"{name} of {reason} is refused in vain"
