"""What a response does, by release and reason (vm_event_resume), and what is wrong with it.

The table `EFFECTS` follows the order of common/vm_event.c:vm_event_resume.
"""

from __future__ import annotations

import struct
from time import monotonic_ns
from typing import TYPE_CHECKING, NamedTuple

from xenintro.abi import CTRLREGS, Flag
from xenintro.sim import p2m
from xenintro.sim.domain import MAX_ALTP2M

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.abi import Field
    from xenintro.sim.machine import Machine
    from xenintro.sim.monitor import Release
    from xenintro.sim.ring import Request, Ring
    from xenintro.sim.vcpu import Vcpu

# Plain ints: operators of IntFlag cost a microsecond each, and these run for every response.
_PAUSED = int(Flag.VCPU_PAUSED)
_EMULATE = int(Flag.EMULATE)
_READ_DATA = int(Flag.SET_EMUL_READ_DATA)
_INSN_DATA = int(Flag.SET_EMUL_INSN_DATA)
_DENY = int(Flag.DENY)
_TOGGLE = int(Flag.TOGGLE_SINGLESTEP)
_FAST = int(Flag.FAST_SINGLESTEP)
_VIEW = int(Flag.ALTERNATE_P2M)
_REGISTERS = int(Flag.SET_REGISTERS)
_INTERRUPT = int(Flag.GET_NEXT_INTERRUPT)

_WITH_EMULATE = _READ_DATA | _INSN_DATA | int(Flag.EMULATE_NOWRITE)
_ONLY_REQUESTS = int(Flag.FOREIGN | Flag.NESTED_P2M)
_DEFINED = sum(int(flag) for flag in Flag)

#: First release of each response flag.
_SINCE: dict[int, Release] = {
    _REGISTERS: (4, 7),
    _INSN_DATA: (4, 8),
    _INTERRUPT: (4, 9),
    _FAST: (4, 14),
    int(Flag.NESTED_P2M): (4, 15),
    int(Flag.RESET_VMTRACE): (4, 15),
    int(Flag.RESET_FORK_STATE): (4, 17),
    int(Flag.RESET_FORK_MEMORY): (4, 17),
}


class Response(NamedTuple):
    """A response slot's header, and the whole slot."""

    version: int
    flags: int
    reason_code: int
    vcpu_id: int
    altp2m_idx: int
    raw: bytes
    reason: str


def parse(machine: Machine, raw: bytes) -> Response:
    """Read a response slot."""
    version, flags, code, vcpu_id, view = struct.unpack_from("<IIIIH", raw)
    reason = machine.interface.reasons.get(code, "unknown")
    return Response(version, flags, code, vcpu_id, view, raw, reason)


def resume(machine: Machine, ring: Ring, response: Response) -> None:
    """Apply one response, as vm_event_resume does."""
    if response.version != machine.interface.version:
        machine.rules.broke("wrong-version", f"version {response.version} for vcpu {response.vcpu_id}")
        return
    if response.vcpu_id >= len(ring.domain.vcpus):
        machine.rules.broke("no-such-vcpu", f"vcpu_id {response.vcpu_id}")
        return
    vcpu = ring.domain.vcpus[response.vcpu_id]
    request = _answered(machine, ring, vcpu, response)
    if request is not None:
        _inspect(machine, vcpu, request, response)
    if machine.release <= (4, 7):
        _resume_4_7(machine, vcpu, response)
    elif vcpu.event_pauses:
        for mask, effect in EFFECTS:
            if response.flags & mask or not mask:
                effect(machine, vcpu, response)
        if response.flags & _PAUSED:
            vcpu.event_pauses -= 1


def _resume_4_7(machine: Machine, vcpu: Vcpu, response: Response) -> None:
    """Up to 4.7 most of it does not ask whether the vCPU is paused."""
    if response.reason in ("mov_to_msr", "write_ctrlreg"):
        _deny(machine, vcpu, response)
    if response.reason == "mem_access":
        _emulate(machine, vcpu, response)
    _switch_view(machine, vcpu, response)
    if response.flags & _PAUSED:
        _set_registers(machine, vcpu, response)
        _singlestep(machine, vcpu, response)
        if vcpu.event_pauses:
            vcpu.event_pauses -= 1
        else:  # printk: "Too many unpause attempts"
            machine.rules.broke("unpause-not-paused", f"vcpu {vcpu.vcpu_id}")


def _answered(machine: Machine, ring: Ring, vcpu: Vcpu, response: Response) -> Request | None:
    """The request that this response answers; without one a rule is broken."""
    domain = ring.domain
    waiting = ring.unanswered.get(vcpu.vcpu_id)
    if waiting:
        match = next((one for one in waiting if one.reason == response.reason), None)
        if match is None:
            match = waiting[0]
            machine.rules.broke(
                "wrong-reason",
                f"vcpu {vcpu.vcpu_id}: {response.reason} answers {match.reason}",
            )
        waiting.remove(match)
        machine.consumed(match.raw, response.raw)
        machine.answer_times.record(monotonic_ns() - match.posted_ns)
        return match
    ring.unsolicited += 1
    if response.reason_code == 0 and response.flags == _PAUSED and not domain.monitor.armed():
        return None  # the rescue of vCPUs that a dead monitor left frozen
    if ring.beyond:
        machine.rules.broke("beyond-requests", f"vcpu {vcpu.vcpu_id}: {response.reason}")
    elif domain.machine.events:
        machine.rules.broke("answered-twice", f"vcpu {vcpu.vcpu_id}: {response.reason}")
    else:
        machine.rules.broke("unsolicited-response", f"vcpu {vcpu.vcpu_id}: {response.reason}")
    return None


def _emulate(machine: Machine, vcpu: Vcpu, response: Response) -> None:
    event = vcpu.event
    if event is None:
        return
    flags = response.flags
    if not flags & _EMULATE:
        event.emulate = 0
        return
    reason = response.reason
    if reason == "mem_access":
        if _still_violates(machine, vcpu, response):
            _keep_read_data(machine, vcpu, response)
            event.emulate = flags
    elif machine.release < (4, 8):
        return
    elif reason == "software_breakpoint" and flags & _INSN_DATA:
        offset, size = machine.interface.emul_insn or (0, 0)
        event.insn_data = response.raw[offset : offset + size]
        event.emulate = flags
    elif reason == "descriptor_access":
        _keep_read_data(machine, vcpu, response)
        event.emulate = flags


def _keep_read_data(machine: Machine, vcpu: Vcpu, response: Response) -> None:
    if response.flags & _READ_DATA and vcpu.event is not None:
        offset, size = machine.interface.emul_read or (0, 4)
        length = min(_read(response.raw, offset, "I"), size - 4)
        vcpu.event.read_data = response.raw[offset + 4 : offset + 4 + length]


def _still_violates(machine: Machine, vcpu: Vcpu, response: Response) -> bool:
    """p2m_mem_access_emulate_check: the page and the access are the response's, not the request's."""
    fields = machine.interface.payloads["mem_access"]
    gfn = _field(response.raw, fields["gfn"])
    flags = _field(response.raw, fields["flags"])
    if not vcpu.domain.has_gfn(gfn):
        return True
    access = vcpu.domain.access(vcpu.view, gfn)
    return bool(flags & 7 & ~p2m.ALLOWED[access])


def _deny(machine: Machine, vcpu: Vcpu, response: Response) -> None:
    if not response.flags & _DENY or vcpu.event is None:
        return
    if response.reason == "mov_to_msr":
        vcpu.event.writes.pop("msr", None)
    elif response.reason == "write_ctrlreg":
        index = _field(response.raw, machine.interface.payloads["write_ctrlreg"]["index"])
        if index < len(CTRLREGS):
            vcpu.event.writes.pop(CTRLREGS[index], None)


def _singlestep(machine: Machine, vcpu: Vcpu, response: Response) -> None:
    if machine.vendor == "amd":  # no monitor trap flag: hvm_is_singlestep_supported
        return
    if response.flags & _TOGGLE:
        vcpu.single_step = not vcpu.single_step
    elif response.flags & _FAST and machine.release >= (4, 14):
        field = machine.interface.fast_singlestep_p2midx
        view = _field(response.raw, field) if field else MAX_ALTP2M
        needs_trap = machine.release <= (4, 18)  # 410ef33439
        if view < MAX_ALTP2M and (vcpu.domain.monitor.singlestep or not needs_trap):
            vcpu.single_step = True
            vcpu.fast_step_view = view


def _switch_view(machine: Machine, vcpu: Vcpu, response: Response) -> None:
    domain, view = vcpu.domain, response.altp2m_idx
    if response.flags & _VIEW and domain.altp2m and domain.has_view(view):
        vcpu.view = view


def _set_registers(machine: Machine, vcpu: Vcpu, response: Response) -> None:
    if not response.flags & _REGISTERS or machine.release < (4, 7) or vcpu.event is None:
        return
    vcpu.event.registers = machine.writer.settable(response.raw)


def _next_interrupt(machine: Machine, vcpu: Vcpu, response: Response) -> None:
    if response.flags & _INTERRUPT and machine.release >= (4, 9):
        vcpu.next_interrupt = True


#: The flags that call for it (0: every response), and the effect.
EFFECTS: tuple[tuple[int, Callable[[Machine, Vcpu, Response], None]], ...] = (
    (0, _emulate),
    (_DENY, _deny),
    (_TOGGLE | _FAST, _singlestep),
    (_VIEW, _switch_view),
    (_REGISTERS, _set_registers),
    (_INTERRUPT, _next_interrupt),
)


def _inspect(machine: Machine, vcpu: Vcpu, request: Request, response: Response) -> None:
    """Name what Xen would silently ignore or misread in an answer to this request."""
    flags = response.flags & ~_PAUSED
    if not flags and request.sync:
        return
    where = f"vcpu {vcpu.vcpu_id}: {response.reason}"
    if flags & _ONLY_REQUESTS:
        machine.rules.broke("request-flag-echoed", f"{where}, {flags & _ONLY_REQUESTS:#x}")
    undefined = flags & ~_DEFINED
    undefined |= sum(flag for flag, since in _SINCE.items() if flags & flag and machine.release < since)
    if undefined:
        machine.rules.broke("flag-undefined", f"{where}, {undefined:#x}")
    if not request.sync and machine.release >= (4, 8):
        if response.flags:
            machine.rules.broke("flag-ignored", f"{where} is asynchronous, {response.flags:#x}")
        return
    if flags & _REGISTERS and flags & (_READ_DATA | _INSN_DATA):
        machine.rules.broke("registers-and-emulation-data", where)
    ignored = _ignored(machine, vcpu, response, flags)
    if ignored:
        machine.rules.broke("flag-ignored", f"{where}, {ignored:#x}")
    _inspect_payload(machine, request, response, where)


def _ignored(machine: Machine, vcpu: Vcpu, response: Response, flags: int) -> int:
    """Flags without effect for this reason, release and state."""
    domain, release = vcpu.domain, machine.release
    ignored = 0
    if flags & _DENY and not _deniable(machine, vcpu, response):
        ignored |= _DENY
    if not flags & _EMULATE:
        ignored |= flags & _WITH_EMULATE
    elif not _emulatable(release, response.reason, flags):
        ignored |= _EMULATE
    steps = flags & (_TOGGLE | _FAST)
    needs_trap = release <= (4, 18) and steps == _FAST
    if machine.vendor == "amd" or (needs_trap and not domain.monitor.singlestep):
        ignored |= steps
    exists = domain.altp2m and domain.has_view(response.altp2m_idx)
    if not exists:
        ignored |= flags & _VIEW
    return ignored


def _emulatable(release: Release, reason: str, flags: int) -> bool:
    if reason == "mem_access":
        return True
    if reason == "software_breakpoint":
        return release >= (4, 8) and bool(flags & _INSN_DATA)
    return reason == "descriptor_access"


def _deniable(machine: Machine, vcpu: Vcpu, response: Response) -> bool:
    if response.reason == "write_ctrlreg":
        index = _field(response.raw, machine.interface.payloads["write_ctrlreg"]["index"])
        if index >= CTRLREGS.index("xcr0"):
            return False
    elif response.reason != "mov_to_msr":
        return False
    return machine.release <= (4, 13) or vcpu.domain.monitor.control_register_values


#: Payload members that Xen reads back, by the flag that makes it look.
_READ_BACK = {
    ("mem_access", _EMULATE): ("gfn", "flags"),
    ("write_ctrlreg", _DENY): ("index",),
}


def _inspect_payload(machine: Machine, request: Request, response: Response, where: str) -> None:
    for (reason, flag), members in _READ_BACK.items():
        if response.reason == reason and response.flags & flag:
            fields = machine.interface.payloads[reason]
            for member in members:
                field = fields[member]
                if _field(request.raw, field) != _field(response.raw, field):
                    machine.rules.broke("payload-not-echoed", f"{where}.{member}")


def _field(raw: bytes, field: Field) -> int:
    return _read(raw, field.offset, field.code)


def _read(raw: bytes, offset: int, code: str) -> int:
    value: int = struct.unpack_from(f"<{code}", raw, offset)[0]
    return value
