"""Answers that Xen would ignore, or that would hang the guest, are refused before they are sent.

The rules are a table; their source is vm_event_resume and what it calls (xen/common/vm_event.c,
xen/arch/x86/vm_event.c, emulate.c) in the releases named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import Flag, Interface
from xenintro.errors import IllegalResponseError
from xenintro.response import (
    EXCEPTION,
    EXTERNAL,
    NMI,
    PRIVILEGED,
    SW_EXCEPTION,
    SW_INTERRUPT,
    UNASKED,
    WITH_ERROR_CODE,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenintro.events import Event
    from xenintro.response import Injection, Response


class Machine(msgspec.Struct, frozen=True):
    """What the host and the monitor can do beyond the interface version.

    Attributes:
        singlestep: the CPU has the monitor trap flag (VMX).
        singlestep_armed: single-step events are trapped.
        altp2m: altp2m is active for the domain.
        control_registers: XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS was issued (Xen 4.14 and newer).
    """

    singlestep: bool = True
    singlestep_armed: bool = True
    altp2m: bool = False
    control_registers: bool = False


class _Rule(msgspec.Struct, frozen=True):
    """Where a flag has an effect. ``release`` is the first that has it, as (major, minor)."""

    reasons: frozenset[str] | None = None
    release: tuple[int, int] = (4, 6)
    arm64: bool = False
    needs: Flag | None = None
    excludes: Flag = Flag(0)
    data: str | None = None  # the member of Response that goes with the flag


_ACCESSES = frozenset({"mem_access", "descriptor_access"})
_BREAKPOINT = frozenset({"software_breakpoint"})
_EMUL_DATA = Flag.SET_EMUL_READ_DATA | Flag.SET_EMUL_INSN_DATA

#: Of the ways to emulate Xen takes one: read data before no write before instruction bytes
#: (hvm_vm_event_do_resume).
#: It copies those for breakpoints only (vm_event_emulate_check, arch/x86/vm_event.c).
_RULES: Mapping[Flag, _Rule] = {
    Flag.EMULATE: _Rule(_ACCESSES | _BREAKPOINT, (4, 5), excludes=Flag.FAST_SINGLESTEP),
    Flag.EMULATE_NOWRITE: _Rule(_ACCESSES, (4, 5), needs=Flag.EMULATE, excludes=_EMUL_DATA),
    Flag.SET_EMUL_READ_DATA: _Rule(
        _ACCESSES, needs=Flag.EMULATE, excludes=Flag.SET_REGISTERS, data="read_data"
    ),
    Flag.SET_EMUL_INSN_DATA: _Rule(
        _BREAKPOINT, (4, 8), needs=Flag.EMULATE, excludes=Flag.SET_REGISTERS, data="insn_data"
    ),
    Flag.TOGGLE_SINGLESTEP: _Rule(excludes=Flag.FAST_SINGLESTEP),
    Flag.DENY: _Rule(frozenset({"write_ctrlreg", "mov_to_msr"})),
    Flag.ALTERNATE_P2M: _Rule(data="altp2m_idx"),
    Flag.SET_REGISTERS: _Rule(None, (4, 7), arm64=True, excludes=_EMUL_DATA, data="registers"),
    Flag.GET_NEXT_INTERRUPT: _Rule(None, (4, 9)),
    Flag.FAST_SINGLESTEP: _Rule(None, (4, 14), excludes=Flag.EMULATE, data="fast_singlestep_view"),
}

#: rip is that of the instruction: sent back unchanged, it executes the instruction again, for ever.
_REEXECUTED = frozenset(
    {"write_ctrlreg", "mov_to_msr", "guest_request", "cpuid", "privileged_call", "io_instruction"}
)

#: Reasons that a plain answer makes happen again, for ever, whatever the policy changed meanwhile.
_NOT_PLAIN = frozenset({"cpuid", "privileged_call", "descriptor_access", "io_instruction"})

_U16, _U32, _U64 = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF

#: Registers that Xen takes from a response, by architecture.
SETTABLE: Mapping[str, frozenset[str]] = {
    "x86_64": frozenset(
        f"r{name}" for name in ["ax", "bx", "cx", "dx", "sp", "bp", "si", "di", "flags", "ip"]
    )
    | frozenset(f"r{number}" for number in range(8, 16)),
    "arm64": frozenset({"pc"}),
}

_REINJECTED = frozenset({"software_breakpoint", "debug_exception"})

#: Events that a page makes happen, which is open while it is stepped over.
_STEPPED_OVER = frozenset({"mem_access", "emul_unimplemented"})

#: Vectors of each type of trap. Others fail the VM entry, and Xen destroys the guest (Intel SDM 26.2.1.3).
_VECTORS: Mapping[int, range] = {
    EXTERNAL: range(32, 256),
    NMI: range(2, 3),
    EXCEPTION: range(32),
    SW_INTERRUPT: range(256),
    PRIVILEGED: range(1, 2),
    SW_EXCEPTION: range(3, 5),
}
_SOFTWARE = (SW_INTERRUPT, PRIVILEGED, SW_EXCEPTION)
_LONGEST_INSN = 15
_WITH_EXTRA = (1, 14)  # #DB: bits of dr6, #PF: cr2
_INTERRUPTS_ON = 1 << 9  # rflags.IF

#: MAX_ALTP2M, before 4.21 made it the domain's own number (06cf6cdab4).
_VIEWS = 10


def check(event: Event, response: Response, machine: Machine) -> None:
    """Pass an answer that has the effect it names.

    Raises:
        IllegalResponseError: Xen would ignore it or the guest would hang; the text says which rule.
    """
    objection = _objection(event, response, machine)
    if objection:
        raise IllegalResponseError(
            f"{response.name} is no answer to {event.reason} ({event.interface.id}, {event.interface.arch})",
            why=objection,
            hint="Xen would ignore it, or the guest would hang: choose another answer",
        )


def _objection(event: Event, response: Response, machine: Machine) -> str | None:
    if response.reinject:
        if event.reason not in _REINJECTED or not event.paused:
            return "only a synchronous software_breakpoint or debug_exception carries a trap to reinject"
        if response.flags & Flag.SET_REGISTERS:
            return "a trap is delivered at the instruction: registers cannot change with it"
    if not event.paused:
        special = response.flags or response.steps_over or response.injection is not None
        return "the event is asynchronous: the vCPU does not wait, Xen applies no flag" if special else None
    if response.injection is not None:
        objection = _injection_objection(event, response, response.injection)
        if objection:
            return objection
    elif not response.flags & (Flag.EMULATE | Flag.SET_REGISTERS) and event.reason in _NOT_PLAIN:
        return "the instruction would be executed again, for ever"
    if response.steps_over and (objection := _step_objection(event, response, machine)):
        return objection
    for flag in Flag(response.flags):
        objection = _flag_objection(flag, event, response)
        if objection:
            return objection
    return _data_objection(event, response) or _state_objection(event, response, machine)


def _injection_objection(event: Event, response: Response, trap: Injection) -> str | None:
    """Why a trap cannot be delivered; Xen itself checks none of this (hvm_inject_event)."""
    if event.interface.arch == "arm64":
        return "traps can be injected on x86 only"
    if response.reinject:
        return "one trap at a time: Xen keeps one per vCPU"
    if event.reason == "interrupt":
        return "Xen drops a trap that is injected while another is about to be delivered"
    if trap.vector not in _VECTORS.get(trap.type, ()):
        return f"no trap of type {trap.type} has vector {trap.vector}"
    has_code = trap.type == EXCEPTION and trap.vector in WITH_ERROR_CODE
    if has_code != (trap.error_code is not None):
        return f"vector {trap.vector} comes {'with' if has_code else 'without'} an error code"
    if not 0 <= (trap.error_code or 0) <= _U32 or not 0 <= trap.extra <= _U64:
        return "an error code has 32 bits, an address 64"
    if trap.extra and trap.vector not in _WITH_EXTRA:
        return "only a page fault has an address, and a debug exception bits of dr6"
    software = trap.type in _SOFTWARE
    if software != bool(trap.insn_length) or not 0 <= trap.insn_length <= _LONGEST_INSN:
        return f"a software trap has an instruction of 1 to {_LONGEST_INSN} bytes, others have none"
    flags = (response.registers or {}).get("rflags", event.registers.get("rflags"))
    if trap.type == EXTERNAL and isinstance(flags, int) and not flags & _INTERRUPTS_ON:
        return "the guest has interrupts off: the VM entry would fail, and Xen destroy the guest"
    return None


def _step_objection(event: Event, response: Response, machine: Machine) -> str | None:
    if event.reason not in _STEPPED_OVER:
        return f"only {' and '.join(sorted(_STEPPED_OVER))} have a page to open for a step"
    if response.flags or response.injection is not None:
        return "a step over the instruction goes with nothing else"
    return _singlestep_objection(event, machine)


def _singlestep_objection(event: Event, machine: Machine) -> str | None:
    if not machine.singlestep:
        return "this host cannot single-step (no monitor trap flag)"
    if not machine.singlestep_armed and event.reason != "singlestep":
        return (
            "single-step events are not trapped (singlestep:asked): the vCPU would step for ever, and get no "
            "interrupts"
        )
    return None


def _data_objection(event: Event, response: Response) -> str | None:
    for flag, rule in _RULES.items():
        if rule.data is not None and bool(response.flags & flag) != (
            getattr(response, rule.data) is not None
        ):
            return f"{(flag.name or '').lower()} and {rule.data} go together"
    views = (response.altp2m_idx or 0, response.fast_singlestep_view or 0)
    if any(not 0 <= view <= _U16 for view in views):
        return "an altp2m view has 16 bits"
    if max(views) >= _VIEWS and _newest_release(event.interface) < (4, 21):
        return f"before Xen 4.21 a domain has {_VIEWS} views, 0 to {_VIEWS - 1}"
    if response.insn_data is not None and len(response.insn_data) != 16:
        return "instruction data is 16 bytes, all of which Xen may use"
    room = event.interface.emul_read
    if response.read_data is not None and room is not None and len(response.read_data) > room[1] - 4:
        return f"at most {room[1] - 4} bytes of read data fit"
    return None


def _flag_objection(flag: Flag, event: Event, response: Response) -> str | None:
    name = (flag.name or str(flag)).lower()
    rule = _RULES.get(flag)
    interface = event.interface
    if rule is None or not interface.has_flag(flag):
        return f"{interface.id} has no response flag {name}"
    newest = _newest_release(interface)
    if newest < rule.release:
        return f"{name} needs Xen {rule.release[0]}.{rule.release[1]}"
    if interface.arch == "arm64" and not rule.arm64:
        return f"{name} has no effect on arm64"
    if rule.reasons is not None and event.reason not in rule.reasons:
        return f"Xen honours {name} only for {', '.join(sorted(rule.reasons))}"
    if rule.needs is not None and not response.flags & rule.needs:
        return f"{name} has no effect without {(rule.needs.name or '').lower()}"
    if response.flags & rule.excludes:
        return f"{name} shares its place in the slot with {Flag(response.flags & rule.excludes)!r}"
    return None


def _state_objection(event: Event, response: Response, machine: Machine) -> str | None:
    flags = response.flags
    if flags & Flag.GET_NEXT_INTERRUPT and event.reason in UNASKED:
        return "what is pending would be reported again, for ever"
    if flags & Flag.TOGGLE_SINGLESTEP:
        objection = _singlestep_objection(event, machine)
        if objection:
            return objection
    if flags & Flag.FAST_SINGLESTEP and not machine.singlestep:
        return "this host cannot single-step (no monitor trap flag)"
    newest = _newest_release(event.interface)
    if flags & Flag.FAST_SINGLESTEP and not machine.singlestep_armed and newest < (4, 19):
        return "before Xen 4.19 a fast single-step needs the singlestep trap armed (410ef33439)"
    if flags & (Flag.ALTERNATE_P2M | Flag.FAST_SINGLESTEP) and not machine.altp2m:
        return "altp2m is not active for this domain"
    if flags & Flag.DENY:
        return _deny_objection(event, machine)
    if flags & Flag.EMULATE and event.reason == "software_breakpoint" and not flags & Flag.SET_EMUL_INSN_DATA:
        return "a breakpoint is emulated only with instruction bytes"
    if response.registers is not None:
        return _register_objection(event, response)
    return None


def _deny_objection(event: Event, machine: Machine) -> str | None:
    if getattr(event, "register", None) == "xcr0":
        return "an XCR0 write cannot be denied in any release"
    if _newest_release(event.interface) >= (4, 14) and not machine.control_registers:
        return "Xen 4.14 and newer ignore deny unless XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS was issued"
    return None


def _register_objection(event: Event, response: Response) -> str | None:
    arch, registers = event.interface.arch, response.registers or {}
    unsettable = sorted(set(registers) - SETTABLE[arch])
    if unsettable:
        return f"Xen takes no {', '.join(unsettable)} from a response"
    if any(not 0 <= value <= _U64 for value in registers.values()):
        return "a register has 64 bits and no sign"
    counter = "rip" if arch == "x86_64" else "pc"
    unchanged = registers.get(counter, event.registers.get(counter)) == event.registers.get(counter)
    if unchanged and event.reason in _REEXECUTED and response.injection is None:
        return f"with {counter} unchanged the instruction is executed again, for ever"
    return None


def _newest_release(interface: Interface) -> tuple[int, int]:
    release = interface.release or (interface.releases[-1] if interface.releases else "4.5")
    major, minor = release.split(".")[:2]
    return int(major), int(minor)
