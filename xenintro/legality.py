"""Answers that Xen would ignore, or that would hang the guest, are refused before they are sent.

The rules are a table; their source is vm_event_resume and what it calls (xen/common/vm_event.c,
xen/arch/x86/vm_event.c, emulate.c) in the releases named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import Flag, Interface
from xenintro.errors import IllegalResponseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenintro.events import Event
    from xenintro.response import Response


class Machine(msgspec.Struct, frozen=True):
    """What the host and the monitor can do beyond the interface version.

    Attributes:
        singlestep: the CPU has the monitor trap flag (VMX).
        altp2m: altp2m is active for the domain.
        control_registers: XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS was issued (Xen 4.14 and newer).
    """

    singlestep: bool = True
    altp2m: bool = False
    control_registers: bool = False


class _Rule(msgspec.Struct, frozen=True):
    """Where a flag has an effect. ``release`` is the first that has it, as (major, minor)."""

    reasons: frozenset[str] | None = None
    release: tuple[int, int] = (4, 6)
    arm64: bool = False
    needs: Flag | None = None
    excludes: Flag = Flag(0)


_EMUL_DATA = Flag.SET_EMUL_READ_DATA | Flag.SET_EMUL_INSN_DATA
_EMULATED = frozenset({"mem_access", "descriptor_access", "software_breakpoint"})

_RULES: Mapping[Flag, _Rule] = {
    Flag.EMULATE: _Rule(_EMULATED, (4, 5), excludes=Flag.FAST_SINGLESTEP),
    Flag.EMULATE_NOWRITE: _Rule(frozenset({"mem_access"}), (4, 5), needs=Flag.EMULATE),
    Flag.SET_EMUL_READ_DATA: _Rule(
        frozenset({"mem_access"}), needs=Flag.EMULATE, excludes=Flag.SET_REGISTERS | Flag.SET_EMUL_INSN_DATA
    ),
    Flag.SET_EMUL_INSN_DATA: _Rule(_EMULATED, (4, 8), needs=Flag.EMULATE, excludes=Flag.SET_REGISTERS),
    Flag.TOGGLE_SINGLESTEP: _Rule(excludes=Flag.FAST_SINGLESTEP),
    Flag.DENY: _Rule(frozenset({"write_ctrlreg", "mov_to_msr"})),
    Flag.ALTERNATE_P2M: _Rule(),
    Flag.SET_REGISTERS: _Rule(None, (4, 7), arm64=True, excludes=_EMUL_DATA),
    Flag.GET_NEXT_INTERRUPT: _Rule(None, (4, 9)),
    Flag.FAST_SINGLESTEP: _Rule(None, (4, 14), excludes=Flag.EMULATE),
}

#: rip is that of the instruction: sent back unchanged, it executes the instruction again, for ever.
_REEXECUTED = frozenset({"write_ctrlreg", "mov_to_msr", "guest_request", "cpuid", "privileged_call"})

_SETTABLE = {
    "x86_64": frozenset(
        f"r{name}" for name in ["ax", "bx", "cx", "dx", "sp", "bp", "si", "di", "flags", "ip"]
    )
    | frozenset(f"r{number}" for number in range(8, 16)),
    "arm64": frozenset({"pc"}),
}

_REINJECTED = frozenset({"software_breakpoint", "debug_exception"})


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
    if response.reinject and event.reason not in _REINJECTED:
        return "only software_breakpoint and debug_exception carry a trap to reinject"
    if not response.flags:
        return None
    if not event.paused:
        return "the event is asynchronous: the vCPU does not wait, Xen applies no flag"
    for flag in Flag(response.flags):
        objection = _flag_objection(flag, event, response)
        if objection:
            return objection
    return _state_objection(event, response, machine)


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
    if flags & (Flag.TOGGLE_SINGLESTEP | Flag.FAST_SINGLESTEP) and not machine.singlestep:
        return "this host cannot single-step (no monitor trap flag)"
    if flags & (Flag.ALTERNATE_P2M | Flag.FAST_SINGLESTEP) and not machine.altp2m:
        return "altp2m is not active for this domain"
    if flags & Flag.DENY:
        return _deny_objection(event, machine)
    if flags & Flag.EMULATE and event.reason == "software_breakpoint" and not flags & Flag.SET_EMUL_INSN_DATA:
        return "a breakpoint is emulated only with instruction bytes"
    if response.insn_data is not None and len(response.insn_data) != 16:
        return "instruction data is 16 bytes, all of which Xen may use"
    if response.registers is not None:
        return _register_objection(event, response.registers)
    return None


def _deny_objection(event: Event, machine: Machine) -> str | None:
    if getattr(event, "register", None) == "xcr0":
        return "an XCR0 write cannot be denied in any release"
    if _newest_release(event.interface) >= (4, 14) and not machine.control_registers:
        return "Xen 4.14 and newer ignore deny unless XEN_DOMCTL_MONITOR_OP_CONTROL_REGISTERS was issued"
    return None


def _register_objection(event: Event, registers: Mapping[str, int]) -> str | None:
    arch = event.interface.arch
    unsettable = sorted(set(registers) - _SETTABLE[arch])
    if unsettable:
        return f"Xen takes no {', '.join(unsettable)} from a response"
    counter = "rip" if arch == "x86_64" else "pc"
    unchanged = registers.get(counter, event.registers.get(counter)) == event.registers.get(counter)
    if unchanged and event.reason in _REEXECUTED:
        return f"with {counter} unchanged the instruction is executed again, for ever"
    return None


def _newest_release(interface: Interface) -> tuple[int, int]:
    release = interface.release or (interface.releases[-1] if interface.releases else "4.5")
    major, minor = release.split(".")[:2]
    return int(major), int(minor)
