"""A virtual CPU: registers, what stops it, and its way through the guest's code.

It runs as a generator, which sleeps where the real one has its stack saved: in the scheduler, and in
the middle of an event when the ring has no room (common/wait.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xenintro.abi.constants import NO_ERROR_CODE
from xenintro.sim import execute, p2m, state
from xenintro.sim.events import traps
from xenintro.sim.program import LINEAR_BASE, Insn
from xenintro.sim.system import commit

if TYPE_CHECKING:
    from collections.abc import Generator

    from xenintro.sim.domain import Domain
    from xenintro.sim.p2m import P2M
    from xenintro.sim.system import Exit

#: Events at one instruction, with no other executed in between, until the rule counts as broken.
ENDLESS = 64

_SOFT_TRAPS = frozenset({4, 5, 6})  # X86_EVENTTYPE_SW_INTERRUPT, PRI_SW_EXCEPTION, SW_EXCEPTION
_INT3 = 0xCC


class Injection(NamedTuple):
    """A trap that the toolstack has asked for (v->arch.hvm.inject_event)."""

    vector: int
    type: int
    error_code: int
    insn_length: int


class EventState:
    """v->arch.vm_event: what responses left for the vCPU's next turn. Freed with the ring.

    Attributes:
        registers: of SET_REGISTERS.
        emulate: flags of the response that asked for emulation, or 0.
        read_data, insn_data: what goes with them.
        writes: deferred writes: ``cr3`` or ``msr`` to (MSR number, value).
    """

    __slots__ = ("emulate", "insn_data", "read_data", "registers", "writes")

    def __init__(self) -> None:
        self.registers: dict[str, int] | None = None
        self.emulate = 0
        self.read_data = b""
        self.insn_data = b""
        self.writes: dict[str, tuple[int, int]] = {}

    @property
    def pending(self) -> bool:
        """Whether freeing it now would lose something."""
        return bool(self.registers or self.emulate or self.writes)


class Vcpu:
    """One vCPU of a guest.

    Attributes:
        event_pauses: vm_event_pause_count.
        ring_blocked: _VPF_mem_access: waits for the ring to empty.
        waiting: asleep inside Xen until a slot is free.
        halted: executed HLT.
        budget: instructions until the end of its turn.
        retired: instructions completed since the guest was created.
        traps: exceptions delivered to the guest, by vector.
        interrupts: interrupts delivered.
    """

    def __init__(self, domain: Domain, vcpu_id: int) -> None:
        self.domain = domain
        self.vcpu_id = vcpu_id
        self.regs = state.initial_registers(domain.program.start)
        self.msrs: dict[int, int] = {}
        self.xcr0 = 1
        self.event_pauses = 0
        self.ring_blocked = False
        self.waiting = False
        self.halted = False
        self.budget = 0
        self.view = 0
        self.single_step = False
        self.fast_step_view: int | None = None
        self.next_interrupt = False
        self.injection: Injection | None = None
        self.event: EventState | None = None
        self.retired = 0
        self.traps: dict[int, int] = {}
        self.interrupts = 0
        self.pending_interrupts: list[int] = []
        self.calls: list[int] = []
        self.counts = [0] * len(domain.program.insns)
        self.attention = False  # something must be looked at before the next instruction
        self.bypass = False  # Xen's emulator runs the instruction: no permissions, few events
        self._step_due = False
        self._loop_rip = -1
        self._loops = 0
        self._thread = self._main()

    @property
    def stopped(self) -> bool:
        """Whether the scheduler leaves it alone."""
        return bool(
            self.event_pauses
            or self.ring_blocked
            or self.waiting
            or (self.halted and not self.pending_interrupts)
            or self.domain.stopped
        )

    @property
    def p2m(self) -> P2M:
        """The table that its accesses are checked against."""
        return self.domain.view(self.view)

    def run(self) -> None:
        """Go on until it stops or the turn is over."""
        next(self._thread)

    def trap(self, vector: int) -> None:
        """Deliver an exception: the guest's handler counts it and returns."""
        self.traps[vector] = self.traps.get(vector, 0) + 1

    def retire(self, rip: int) -> None:
        """An instruction that Xen completed for the guest."""
        self.regs["rip"] = rip
        self.retired += 1

    def looping(self, reason: str) -> None:
        """Note an event; many at one instruction that never ends are a client's mistake."""
        self._loops += 1
        if self._loops == ENDLESS:
            self.domain.machine.rules.broke(
                "endless-loop",
                f"vcpu {self.vcpu_id}: {ENDLESS} {reason} events at rip {self._loop_rip:#x}",
            )

    def _main(self) -> Generator[None, None, None]:
        while True:
            while self.budget <= 0 or self.stopped:
                yield
            if self._due() and (yield from self._resume()):
                continue
            # What others do to this vCPU they do between its turns: nothing to look at until it exits.
            self.attention = False
            work = self._run_natively()
            if work is not None:
                yield from work
            elif self._step_due:
                self._step_due = False
                yield from self._stepped()

    def _run_natively(self) -> Exit | None:
        """Execute until an instruction exits to Xen, attention is needed or the turn is over."""
        domain, regs, kinds = self.domain, self.regs, execute.KINDS
        at, memory = domain.program.at, domain.memory
        while self.budget > 0 and not self.attention:
            self.budget -= 1
            rip = regs["rip"]
            if rip != self._loop_rip:
                self._loop_rip = rip
                self._loops = 0
            insn = at.get(rip) or self.instruction(rip)
            if insn is None:
                self._crash(rip)
                return None
            if not p2m.ALLOWED[domain.access(self.view, insn.gfn)] & p2m.X:
                return execute.violation(self, rip, insn.gfn, insn.offset & 0xFFF, "x")
            if memory[insn.offset] == _INT3 and insn.kind != "int3":
                # Someone planted a breakpoint over it.
                work = kinds["int3"](self, Insn(0, "int3", rip, b"\xcc"))
            else:
                work = kinds[insn.kind](self, insn)
            if not isinstance(work, int):
                return work
            regs["rip"] = work
            self.retired += 1
            if self.single_step:
                self._step_due = True
                return None
        return None

    def instruction(self, rip: int) -> Insn | None:
        """What lies at an address: the scenario's code, or the RET that every other page is full of."""
        insn = self.domain.program.at.get(rip)
        if insn is None and self.calls and self.domain.has_gfn(rip - LINEAR_BASE >> 12):
            return Insn(0, "ret", rip, b"\xc3")
        return insn

    def _due(self) -> bool:
        """Whether something must happen before the next instruction."""
        event = self.event
        return bool(
            (event is not None and event.pending)
            or self.injection
            or (self.pending_interrupts and not self.single_step)
        )

    def _resume(self) -> Generator[None, None, bool]:
        """hvm_do_resume, then vmx_intr_assist. True if the vCPU may have been stopped in it."""
        event = self.event
        if event is not None:
            self._take_registers(event)
            if event.emulate:
                flags, event.emulate = event.emulate, 0
                yield from execute.emulate(self, flags, event)
            writes, event.writes = event.writes, {}
            for register, (msr, value) in writes.items():
                commit(self, register, msr, value)
        if self.injection is not None:
            injection, self.injection = self.injection, None
            yield from self._report_interrupt(injection)
            self.trap(injection.vector)
            if injection.type in _SOFT_TRAPS:
                self.regs["rip"] += injection.insn_length
        if self.pending_interrupts and not self.single_step and not self.stopped:
            yield from self._interrupt()
        return self.stopped

    def _interrupt(self) -> Generator[None, None, None]:
        yield from self._report_interrupt(Injection(self.pending_interrupts[0], 0, NO_ERROR_CODE, 0))
        self.halted = False
        self.pending_interrupts.pop(0)
        self.interrupts += 1

    def _report_interrupt(self, what: Injection) -> Generator[None, None, None]:
        """The one-shot INTERRUPT event before what is pending is delivered (hvm_do_resume, 4.9 on)."""
        while self.next_interrupt and self.event is not None:
            self.next_interrupt = False
            values = {"vector": what.vector, "type": what.type, "error_code": what.error_code, "cr2": 0}
            yield from traps(self, True, "interrupt", values)
            while self.stopped:
                yield
            # hvm_do_resume, again: something is pending, so that another injection is dropped, and who asks
            # for the next interrupt is told of this one.
            self.injection = None
            if self.event is not None:
                self._take_registers(self.event)

    def _take_registers(self, event: EventState) -> None:
        if event.registers is not None:
            self.regs.update(event.registers)
            event.registers = None

    def _stepped(self) -> Generator[None, None, None]:
        """The monitor trap flag's exit (hvm_monitor_debug, HVM_MONITOR_SINGLESTEP_BREAKPOINT)."""
        if self.fast_step_view is not None:
            self.view = self.fast_step_view if self.domain.has_view(self.fast_step_view) else 0
            self.fast_step_view = None
            self.single_step = False
        elif self.domain.monitor.singlestep:
            gfn = self.regs["rip"] - LINEAR_BASE >> 12
            yield from traps(self, True, "singlestep", {"gfn": gfn})

    def _crash(self, rip: int) -> None:
        self.domain.machine.rules.broke(
            "guest-crashed", f"vcpu {self.vcpu_id}: no instruction at rip {rip:#x}"
        )
        self.domain.crash()
