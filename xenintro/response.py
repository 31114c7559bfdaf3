"""What to do: the answer to a request, and the table that says what "let it happen" means per reason."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import Flag, Interface
from xenintro.errors import IllegalResponseError

if TYPE_CHECKING:
    from xenintro.events import Event


class Injection(msgspec.Struct, frozen=True, gc=False):
    """A trap for the guest, delivered when the vCPU runs again (xc_hvm_inject_trap).

    Attributes:
        vector: 0 to 255.
        type: X86_EVENTTYPE_* (x86-defns.h): 0 interrupt, 2 NMI, 3 exception, 4 INT n, 5 ICEBP, 6 INT3.
        error_code: None for none.
        insn_length: bytes of the instruction of a software trap (types 4 to 6): the guest returns behind it.
        extra: cr2 of a page fault, the pending bits of dr6 of a debug exception.
    """

    vector: int
    type: int
    error_code: int | None = None
    insn_length: int = 0
    extra: int = 0


class Response(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An answer. Build it with the constructors below; `xenintro.codec.encode` spells it for the ring.

    Attributes:
        name: what the answer is called in JSON and in the human line.
        flags: bits of `xenintro.abi.Flag` beyond VCPU_PAUSED, which the codec copies from the request.
            Plain ints: operators of IntFlag cost a microsecond on the answer path.
        registers: general registers to change; the rest of the snapshot is sent back as it came.
        altp2m_idx: the view to switch to, with ALTERNATE_P2M.
        read_data: bytes an emulated read returns, with SET_EMUL_READ_DATA.
        insn_data: 16 instruction bytes to emulate, with SET_EMUL_INSN_DATA.
        fast_singlestep_view: the view to be in after one step, with FAST_SINGLESTEP.
        reinject: deliver the event's own trap to the guest by hypercall before the answer.
        injection: deliver this trap in the same way.
        steps_over: open the page for one step, as ``:step`` in ``-e`` does; the live monitor does that.
    """

    name: str
    flags: int = 0
    registers: Mapping[str, int] | None = None
    altp2m_idx: int | None = None
    read_data: bytes | None = None
    insn_data: bytes | None = None
    fast_singlestep_view: int | None = None
    reinject: bool = False
    injection: Injection | None = None
    steps_over: bool = False

    @classmethod
    def plain(cls) -> Response:
        """Unpause the vCPU and nothing more; what that does differs by reason."""
        return PLAIN

    @classmethod
    def allow(cls, event: Event) -> Response:
        """The guest goes on as if nobody watched."""
        return allow(event)

    @classmethod
    def deny(cls) -> Response:
        """Cancel a control-register or MSR write."""
        return cls(name="deny", flags=int(Flag.DENY))

    @classmethod
    def emulate(
        cls,
        *,
        write: bool = True,
        read_data: bytes | None = None,
        insn_data: bytes | None = None,
    ) -> Response:
        """Let Xen emulate the instruction: without its writes, with other read data, or other bytes."""
        flags, name = Flag.EMULATE, "emulate"
        if not write:
            flags, name = flags | Flag.EMULATE_NOWRITE, "emulate-nowrite"
        if read_data is not None:
            flags, name = flags | Flag.SET_EMUL_READ_DATA, "emulate-read"
        if insn_data is not None:
            flags, name = flags | Flag.SET_EMUL_INSN_DATA, "emulate-insn"
        return cls(name=name, flags=int(flags), read_data=read_data, insn_data=insn_data)

    @classmethod
    def set_registers(cls, registers: Mapping[str, int]) -> Response:
        """Change general registers, rflags or rip (pc on Arm); rip unchanged re-executes the instruction."""
        return cls(name="set-registers").with_registers(registers)

    @classmethod
    def skip(cls, event: Event, length: int | None = None) -> Response:
        """The instruction does nothing, and the guest goes on behind it.

        Args:
            event: whose instruction.
            length: its bytes, where neither the event nor the instruction's kind tells.

        Raises:
            IllegalResponseError: nobody knows where the next instruction is.
        """
        if event.reason in WRITES:  # Xen moves on by itself; what must not happen is the write
            return cls(name="skip", flags=int(Flag.DENY))
        return cls(name="skip").skipping(event, length)

    @classmethod
    def step_over(cls) -> Response:
        """Let the access happen on the processor: the page is open for this one instruction (Intel)."""
        return cls(name="step-over", steps_over=True)

    @classmethod
    def single_step(cls) -> Response:
        """Report the vCPU's next instruction too, as a singlestep event (Intel)."""
        return cls(name="single-step", flags=int(Flag.TOGGLE_SINGLESTEP))

    @classmethod
    def fast_singlestep(cls, view: int) -> Response:
        """One step in this view, then switch to ``view``, without an event (Xen 4.14)."""
        return cls(name="fast-singlestep", flags=int(Flag.FAST_SINGLESTEP), fast_singlestep_view=view)

    @classmethod
    def switch_view(cls, altp2m_idx: int) -> Response:
        """Run the vCPU in another altp2m view, the instruction included; 0 is the plain guest."""
        return PLAIN.in_view(altp2m_idx)

    @classmethod
    def inject(
        cls,
        vector: int,
        *,
        error_code: int | None = None,
        cr2: int = 0,
        type: int | None = None,
        insn_length: int = 0,
    ) -> Response:
        """Deliver a trap to the guest.

        Args:
            vector: 0 to 255.
            error_code: by default 0 for the exceptions that have one.
            cr2: where a page fault says it was; for vector 1 the bits of dr6.
            type: see `Injection`; by default what the processor makes of the vector.
            insn_length: of the software interrupt that it pretends to be.
        """
        return cls(name="inject").injecting(
            vector, error_code=error_code, cr2=cr2, type=type, insn_length=insn_length
        )

    @classmethod
    def next_interrupt(cls, event: Event) -> Response:
        """Let the event happen, and report what is delivered to the vCPU next (Xen 4.9)."""
        return allow(event).asking_next_interrupt()

    @classmethod
    def reinjected(cls) -> Response:
        """Deliver the trap (INT3, #DB) to the guest, as the CPU would have done."""
        return _REINJECT

    def with_flags(self, flags: Flag, name: str | None = None) -> Response:
        """The same answer with more flags."""
        return msgspec.structs.replace(self, flags=self.flags | int(flags), name=name or self.name)

    def with_registers(self, registers: Mapping[str, int]) -> Response:
        """The same answer, and these registers change too; see `set_registers`."""
        together = {**(self.registers or {}), **registers}
        name, flags = self._named("set-registers"), self.flags | _SET_REGISTERS
        return msgspec.structs.replace(self, name=name, flags=flags, registers=together)

    def skipping(self, event: Event, length: int | None = None) -> Response:
        """The same answer, and the guest goes on behind the instruction; see `skip`."""
        counter = "pc" if event.interface.arch == "arm64" else "rip"
        at = event.registers.get(counter)
        length = insn_length(event) if length is None else length
        if length is None or not isinstance(at, int):
            raise IllegalResponseError(
                f"skip is no answer to {event.reason} ({event.interface.id}, {event.interface.arch})",
                why="the event does not tell how long the instruction is",
                hint="give its length, or choose another answer",
            )
        return self.with_registers({counter: (at + length) & 0xFFFFFFFFFFFFFFFF})

    def injecting(
        self,
        vector: int,
        *,
        error_code: int | None = None,
        cr2: int = 0,
        type: int | None = None,
        insn_length: int = 0,
    ) -> Response:
        """The same answer, and a trap is delivered; see `inject`."""
        usual = _TYPES.get(vector, EXCEPTION if vector < 32 else EXTERNAL)
        kind = usual if type is None else type
        if error_code is None and kind == EXCEPTION and vector in WITH_ERROR_CODE:
            error_code = 0
        injection = Injection(vector, kind, error_code, insn_length, cr2)
        return msgspec.structs.replace(self, name=self._named("inject"), injection=injection)

    def in_view(self, altp2m_idx: int) -> Response:
        """The same answer, and the vCPU switches to an altp2m view."""
        flags, name = self.flags | int(Flag.ALTERNATE_P2M), self._named("switch-view")
        return msgspec.structs.replace(self, flags=flags, name=name, altp2m_idx=altp2m_idx)

    def asking_next_interrupt(self) -> Response:
        """The same answer, and the next interrupt is reported."""
        return self.with_flags(Flag.GET_NEXT_INTERRUPT, self._named("next-interrupt"))

    def _named(self, name: str) -> str:
        """What an answer is called that was nothing special and now does this too."""
        return name if self.name in ("plain", "allow") else self.name


#: X86_EVENTTYPE_* (xen/include/asm-x86/x86-defns.h).
EXTERNAL, NMI, EXCEPTION, SW_INTERRUPT, PRIVILEGED, SW_EXCEPTION = 0, 2, 3, 4, 5, 6

#: The type of the vectors that are neither exceptions nor interrupts from outside.
_TYPES: Mapping[int, int] = {2: NMI, 3: SW_EXCEPTION, 4: SW_EXCEPTION}

#: Exceptions that push an error code (Intel SDM 3A, table 6-1).
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21})

#: Reasons whose answers do not ask for the next interrupt: what is pending would be reported again, for ever.
UNASKED = frozenset({"interrupt"})

#: Reasons of writes that Xen does after the answer, and may leave undone.
WRITES = frozenset({"write_ctrlreg", "mov_to_msr"})

_SET_REGISTERS = int(Flag.SET_REGISTERS)
#: The vCPU unpaused and nothing more.
PLAIN = Response(name="plain")

#: Lets an event happen that needs nothing more than its vCPU unpaused.
ALLOWED = Response(name="allow")
_EMULATE = Response(name="allow", flags=int(Flag.EMULATE))
_STEP_END = Response(name="allow", flags=int(Flag.TOGGLE_SINGLESTEP))
_REINJECT = Response(name="allow", reinject=True)

#: What "allow" sends where it does not depend on the event's values. Effects: vm_event_resume and the
#: handlers it calls (xen/common/vm_event.c, arch/x86/vm_event.c). Absent reasons have no generic answer.
ALLOW: Mapping[str, Response] = {
    "unknown": ALLOWED,
    "mem_access": _EMULATE,
    "mem_paging": ALLOWED,
    "mem_sharing": ALLOWED,
    "write_ctrlreg": ALLOWED,
    "mov_to_msr": ALLOWED,
    "software_breakpoint": _REINJECT,
    "debug_exception": _REINJECT,
    "singlestep": _STEP_END,
    "guest_request": ALLOWED,
    "interrupt": ALLOWED,
    "descriptor_access": _EMULATE,
    "emul_unimplemented": ALLOWED,
    "vmexit": ALLOWED,
    "io_instruction": ALLOWED,
}

#: Reasons where a plain answer re-executes the instruction: the program counter moves on by hand.
#: Value: the register, and the bytes to skip (None: the event's insn_length).
SKIPPED: Mapping[str, tuple[str, int | None]] = {
    "cpuid": ("rip", None),
    "privileged_call": ("pc", 4),
}

#: Bytes of the instruction where it has but one form (VMCALL and VMMCALL, SMC) and the event does not tell.
_LENGTHS: Mapping[str, int] = {"guest_request": 3, "privileged_call": 4, "software_breakpoint": 1}

#: Reasons that no generic answer lets happen: a plain one re-executes the instruction for ever.
NEEDS_POLICY = frozenset({"io_instruction", "vmexit"})


def allow(event: Event) -> Response:
    """The answer that lets this event happen; see `ALLOW`."""
    skipped = SKIPPED.get(event.reason)
    if skipped is None:
        if not event.paused:
            # Nobody waits, and Xen has done by itself what had to be done (it injects an asynchronous #DB).
            return ALLOWED
        return _table(event.interface)[event.reason]
    register, length = skipped
    if length is None:
        length = event.insn_length  # type: ignore[attr-defined]
    at = event.registers.get(register)
    if not isinstance(at, int):  # no such event on this architecture: nothing to move on
        return ALLOWED
    value = (at + length) & 0xFFFFFFFFFFFFFFFF
    return Response(name="allow", flags=_SET_REGISTERS, registers={register: value})


@cache
def _table(interface: Interface) -> Mapping[str, Response]:
    """`ALLOW` for one interface: plain where it lacks the flag; the monitor then opens the page itself."""

    def possible(response: Response) -> bool:
        emulates = response.flags & _EMULATE.flags
        return all(map(interface.has_flag, Flag(response.flags))) and not (
            emulates and interface.arch == "arm64"
        )

    return {reason: response if possible(response) else ALLOWED for reason, response in ALLOW.items()}


def insn_length(event: Event) -> int | None:
    """Bytes of the instruction behind an event; None where neither the event nor its kind tells."""
    told: int | None = getattr(event, "insn_length", None)
    return _LENGTHS.get(event.reason) if told is None else told
