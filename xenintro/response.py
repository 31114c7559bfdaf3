"""What to do: the answer to a request, and the table that says what "let it happen" means per reason."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import Flag, Interface

if TYPE_CHECKING:
    from xenintro.events import Event


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
        reinject: deliver the trap to the guest by hypercall before the answer.
    """

    name: str
    flags: int = 0
    registers: Mapping[str, int] | None = None
    altp2m_idx: int | None = None
    read_data: bytes | None = None
    insn_data: bytes | None = None
    fast_singlestep_view: int | None = None
    reinject: bool = False

    @classmethod
    def plain(cls) -> Response:
        """Unpause the vCPU and nothing more; what that does differs by reason."""
        return _PLAIN

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
        flags = Flag.EMULATE
        if not write:
            flags |= Flag.EMULATE_NOWRITE
        if read_data is not None:
            flags |= Flag.SET_EMUL_READ_DATA
        if insn_data is not None:
            flags |= Flag.SET_EMUL_INSN_DATA
        name = "emulate" if write else "emulate-nowrite"
        return cls(name=name, flags=int(flags), read_data=read_data, insn_data=insn_data)

    @classmethod
    def set_registers(cls, registers: Mapping[str, int]) -> Response:
        """Change general registers, rflags or rip (pc on Arm); rip unchanged re-executes the instruction."""
        return cls(name="set-registers", flags=int(Flag.SET_REGISTERS), registers=registers)

    @classmethod
    def toggle_singlestep(cls) -> Response:
        """Flip single-stepping of this vCPU: a toggle, not a switch."""
        return cls(name="toggle-singlestep", flags=int(Flag.TOGGLE_SINGLESTEP))

    @classmethod
    def fast_singlestep(cls, view: int) -> Response:
        """One step in this view, then switch to ``view``, without an event (Xen 4.14)."""
        return cls(name="fast-singlestep", flags=int(Flag.FAST_SINGLESTEP), fast_singlestep_view=view)

    @classmethod
    def reinjected(cls) -> Response:
        """Deliver the trap (INT3, #DB) to the guest, as the CPU would have done."""
        return _REINJECT

    def with_flags(self, flags: Flag, name: str | None = None) -> Response:
        """The same answer with more flags."""
        return msgspec.structs.replace(self, flags=self.flags | int(flags), name=name or self.name)

    def in_view(self, altp2m_idx: int) -> Response:
        """The same answer, and the vCPU switches to an altp2m view."""
        flags = self.flags | int(Flag.ALTERNATE_P2M)
        return msgspec.structs.replace(self, flags=flags, altp2m_idx=altp2m_idx)


_SET_REGISTERS = int(Flag.SET_REGISTERS)
_PLAIN = Response(name="plain")

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
