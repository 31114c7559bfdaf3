"""What each instruction does: those that Xen has no part in, memory accesses, and Xen's emulator.

A function of `KINDS` returns the address of the next instruction when the processor did all of it, or
a generator when it exits to Xen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.abi import Access, Flag
from xenintro.sim import p2m
from xenintro.sim.events import traps, vmexit
from xenintro.sim.program import LINEAR_BASE
from xenintro.sim.system import INVALID_OPCODE, SYSTEM, unimplemented

if TYPE_CHECKING:
    from collections.abc import Generator

    from xenintro.sim.program import Insn
    from xenintro.sim.system import Exit, Kind
    from xenintro.sim.vcpu import EventState, Vcpu

_NEED = {"read": "r", "write": "w", "modify": "rw", "walk": "r", "exotic": "w"}
_BITS = {"r": p2m.R, "w": p2m.W, "x": p2m.X, "rw": p2m.RW}

_GLA_VALID = int(Access.GLA_VALID)
_WITH_GLA, _IN_GPT = int(Access.FAULT_WITH_GLA), int(Access.FAULT_IN_GPT)

_PAGE_FAULT = 14
_EPT_VIOLATION = 48  # basic exit reason of the VMCS


def _set(vcpu: Vcpu, insn: Insn) -> int:
    count = vcpu.counts[insn.number]
    vcpu.counts[insn.number] = count + 1
    vcpu.regs[insn.register] = insn.values[count % len(insn.values)]
    return insn.end


def _nop(vcpu: Vcpu, insn: Insn) -> int:
    return insn.end


def _jmp(vcpu: Vcpu, insn: Insn) -> int:
    return insn.target


def _loop(vcpu: Vcpu, insn: Insn) -> int:
    count = vcpu.counts[insn.number] + 1
    vcpu.counts[insn.number] = count % insn.count
    return insn.end if count == insn.count else insn.target


def _hlt(vcpu: Vcpu, insn: Insn) -> int:
    vcpu.halted = True
    vcpu.attention = True
    return insn.end


def _interrupt(vcpu: Vcpu, insn: Insn) -> int:
    vcpu.pending_interrupts.append(vcpu.regs["rax"] & 0xFF)
    vcpu.attention = True
    return insn.end


def _exec(vcpu: Vcpu, insn: Insn) -> int:
    vcpu.calls.append(insn.end)
    return vcpu.regs["rdi"]


def _ret(vcpu: Vcpu, insn: Insn) -> int:
    return vcpu.calls.pop()


def _memory(vcpu: Vcpu, insn: Insn) -> int | Exit:
    address = vcpu.regs["rdi"] - LINEAR_BASE
    gfn = address >> 12
    domain = vcpu.domain
    if not domain.has_gfn(gfn):
        vcpu.trap(_PAGE_FAULT)
        return insn.end
    need = _NEED[insn.kind]
    if not vcpu.bypass and _BITS[need] & ~p2m.ALLOWED[domain.access(vcpu.view, gfn)]:
        kind = _IN_GPT if insn.kind == "walk" else _WITH_GLA
        return violation(vcpu, vcpu.regs["rdi"], gfn, address & 0xFFF, need, kind)
    if vcpu.bypass and insn.kind == "exotic":
        return unimplemented(vcpu)
    memory = domain.memory
    if insn.kind in ("read", "walk"):
        vcpu.regs["rax"] = memory[address]
    else:
        memory[address] = memory[address] + 1 & 0xFF
    return insn.end


def violation(
    vcpu: Vcpu,
    gla: int,
    gfn: int,
    offset: int,
    need: str,
    kind: int = _WITH_GLA,
) -> Exit:
    """hvm_hap_nested_page_fault and p2m_mem_access_check: the access is tried again afterwards."""
    if (yield from vmexit(vcpu, _EPT_VIOLATION)):
        return
    domain = vcpu.domain
    table = vcpu.p2m
    access = domain.access(vcpu.view, gfn)
    if access == p2m.RX2RW and "w" in need:
        table.access[gfn] = p2m.RW
        return
    if access == p2m.N2RWX:
        table.access[gfn] = p2m.RWX
    if domain.ring is None:
        if table.access_required:
            domain.crash()
        else:
            table.access[gfn] = p2m.RWX
        return
    if domain.monitor.inguest_pagefault_disabled and kind == _IN_GPT:
        yield from _run_emulator(vcpu)
        return
    flags = _GLA_VALID | kind | _BITS[need]
    values = {"gfn": gfn, "offset": offset, "gla": gla, "flags": flags}
    yield from traps(vcpu, access != p2m.N2RWX, "mem_access", values)


def emulate(vcpu: Vcpu, flags: int, event: EventState) -> Generator[None, None, None]:
    """hvm_emulate_one_vm_event: one instruction without permission checks, as the response asked."""
    if flags & Flag.SET_EMUL_READ_DATA:
        before = vcpu.regs["rax"]
        yield from _run_emulator(vcpu)
        if vcpu.regs["rax"] != before or event.read_data:
            vcpu.regs["rax"] = int.from_bytes(event.read_data[:1], "little")
    elif flags & Flag.EMULATE_NOWRITE:
        memory = vcpu.domain.memory
        address = vcpu.regs["rdi"] - LINEAR_BASE
        kept = memory[address] if vcpu.domain.has_gfn(address >> 12) else None
        yield from _run_emulator(vcpu)
        if kept is not None:
            memory[address] = kept
    elif flags & Flag.SET_EMUL_INSN_DATA:
        yield from _run_emulator(vcpu, event.insn_data)
    else:
        yield from _run_emulator(vcpu)


def _run_emulator(vcpu: Vcpu, code: bytes | None = None) -> Generator[None, None, None]:
    insn = vcpu.instruction(vcpu.regs["rip"])
    if insn is None or (code is not None and not code.startswith(insn.code)):
        if code is not None and code[:1] == b"\x90":
            vcpu.retire(vcpu.regs["rip"] + 1)
            return
        vcpu.trap(INVALID_OPCODE)
        return
    vcpu.bypass = True
    try:
        work = KINDS[insn.kind](vcpu, insn)
        if isinstance(work, int):
            vcpu.retire(work)
        else:
            yield from work
    finally:
        vcpu.bypass = False


KINDS: dict[str, Kind] = {
    "set": _set,
    "nop": _nop,
    "pause": _nop,
    "jmp": _jmp,
    "loop": _loop,
    "hlt": _hlt,
    "interrupt": _interrupt,
    "exec": _exec,
    "ret": _ret,
    **dict.fromkeys(_NEED, _memory),
    **SYSTEM,
}
