"""What each instruction does: by itself, or through Xen when a monitor or page permissions trap it.

A function of `KINDS` returns the address of the next instruction when the processor did all of it, or
a generator when it exits to Xen. Those follow hvm/vmx/vmx.c:vmx_vmexit_handler and
hvm/monitor.c of the release that is played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.abi import Access, Flag
from xenintro.sim import p2m, state
from xenintro.sim.events import traps, vmexit
from xenintro.sim.program import LINEAR_BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from xenintro.sim.program import Insn
    from xenintro.sim.vcpu import EventState, Vcpu

    Exit = Generator[None, None, None]
    Kind = Callable[[Vcpu, Insn], int | Exit]

__all__ = ["KINDS", "commit", "emulate", "traps", "violation"]

_CTRLREGS = {"cr0": 0, "cr3": 1, "cr4": 2, "xcr0": 3}
_DESCRIPTORS = {"sidt": 1, "lidt": 1, "sgdt": 2, "lgdt": 2, "sldt": 3, "lldt": 3, "str": 4, "ltr": 4}
_NEED = {"read": "r", "write": "w", "modify": "rw", "walk": "r", "exotic": "w"}
_BITS = {"r": p2m.R, "w": p2m.W, "x": p2m.X, "rw": p2m.RW}

_GLA_VALID = int(Access.GLA_VALID)
_WITH_GLA, _IN_GPT = int(Access.FAULT_WITH_GLA), int(Access.FAULT_IN_GPT)

_BREAKPOINT, _DEBUG, _INVALID_OPCODE = 3, 1, 6
_HW_EXCEPTION, _PRIVILEGED, _SOFTWARE = 3, 5, 6  # X86_EVENTTYPE_*

# Basic exit reasons of the VMCS (Intel SDM, appendix C).
_EXCEPTION, _CPUID, _VMCALL, _CR, _IO, _WRMSR = 0, 10, 18, 28, 30, 32
_TABLES, _EPT, _XSETBV = 46, 48, 55


def commit(vcpu: Vcpu, register: str, msr: int, value: int) -> None:
    """Let a write to a control register or MSR happen."""
    if register == "msr":
        name = state.MSR_REGISTERS.get(msr)
        if name is None:
            vcpu.msrs[msr] = value
        else:
            vcpu.regs[name] = value
    elif register == "xcr0":
        vcpu.xcr0 = value
    else:
        vcpu.regs[register] = value


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


def _ctrlreg(vcpu: Vcpu, insn: Insn) -> int | Exit:
    name = insn.kind
    new = vcpu.regs["rax"]
    if name == "xcr0":
        new = (new & 0xFFFFFFFF) | vcpu.regs["rdx"] << 32
    monitor = vcpu.domain.monitor
    if monitor.writes_ctrlreg(_CTRLREGS[name]) or monitor.vmexit:
        return _write_ctrlreg(vcpu, insn, name, new)
    commit(vcpu, name, 0, new)
    return insn.end


def _write_ctrlreg(vcpu: Vcpu, insn: Insn, name: str, new: int) -> Exit:
    if (yield from vmexit(vcpu, _XSETBV if name == "xcr0" else _CR)):
        return
    domain = vcpu.domain
    index = _CTRLREGS[name]
    old = vcpu.xcr0 if name == "xcr0" else vcpu.regs[name]
    deferred = False
    if domain.monitor.reports_ctrlreg(index, old, new):
        values = {"index": index, "new_value": new, "old_value": old}
        sync = domain.monitor.ctrlreg_sync(index)
        rc = yield from traps(vcpu, sync, "write_ctrlreg", values)
        deferred = name != "xcr0" and domain.quirks.defers_ctrlreg(rc, domain.monitor)
    _write(vcpu, name, 0, new, deferred)
    vcpu.retire(insn.end)


def _wrmsr(vcpu: Vcpu, insn: Insn) -> int | Exit:
    msr = vcpu.regs["rcx"] & 0xFFFFFFFF
    new = (vcpu.regs["rax"] & 0xFFFFFFFF) | (vcpu.regs["rdx"] & 0xFFFFFFFF) << 32
    monitor = vcpu.domain.monitor
    if monitor.watches_msr(msr) or monitor.vmexit:
        return _write_msr(vcpu, insn, msr, new)
    commit(vcpu, "msr", msr, new)
    return insn.end


def _write_msr(vcpu: Vcpu, insn: Insn, msr: int, new: int) -> Exit:
    if (yield from vmexit(vcpu, _WRMSR)):
        return
    domain = vcpu.domain
    deferred = False
    if domain.monitor.watches_msr(msr):
        name = state.MSR_REGISTERS.get(msr)
        old = vcpu.msrs.get(msr, 0) if name is None else vcpu.regs[name]
        rc = 0
        if new != old or not domain.monitor.msr_onchangeonly(msr):
            values = {"msr": msr, "value": new, "new_value": new, "old_value": old}
            rc = yield from traps(vcpu, True, "mov_to_msr", values)
        deferred = domain.quirks.defers_msr(rc, domain.monitor)
    _write(vcpu, "msr", msr, new, deferred)
    vcpu.retire(insn.end)


def _write(vcpu: Vcpu, register: str, msr: int, value: int, deferred: bool) -> None:
    if not deferred:
        commit(vcpu, register, msr, value)
    elif vcpu.event is None:
        # hvm_set_cr3 and friends guard v->arch.vm_event with an ASSERT only.
        vcpu.domain.machine.rules.broke("null-event-state", f"vcpu {vcpu.vcpu_id}: {register}")
        vcpu.domain.crash()
    else:
        vcpu.event.writes[register] = (msr, value)


def _int3(vcpu: Vcpu, insn: Insn) -> int | Exit:
    monitor = vcpu.domain.monitor
    if vcpu.bypass or not (monitor.software_breakpoint or monitor.vmexit):
        vcpu.trap(_BREAKPOINT)
        return insn.end
    return _exception(vcpu, insn, _BREAKPOINT, _SOFTWARE)


def _icebp(vcpu: Vcpu, insn: Insn) -> int | Exit:
    return _debug(vcpu, insn, _PRIVILEGED)


def _hwdb(vcpu: Vcpu, insn: Insn) -> int | Exit:
    return _debug(vcpu, insn, _HW_EXCEPTION)


def _debug(vcpu: Vcpu, insn: Insn, kind: int) -> int | Exit:
    monitor = vcpu.domain.monitor
    if vcpu.bypass or not (monitor.debug_exception or monitor.vmexit):
        vcpu.trap(_DEBUG)
        return insn.end
    return _exception(vcpu, insn, _DEBUG, kind)


def _exception(vcpu: Vcpu, insn: Insn, vector: int, kind: int) -> Exit:
    """A #BP or #DB. A hardware #DB is a trap: its instruction is done when it comes."""
    if kind == _HW_EXCEPTION:
        vcpu.retire(insn.end)
    if (yield from vmexit(vcpu, _EXCEPTION)):
        return
    monitor = vcpu.domain.monitor
    reason = "software_breakpoint" if vector == _BREAKPOINT else "debug_exception"
    rc = 0
    if getattr(monitor, reason):
        values = {
            "gfn": vcpu.regs["rip"] - LINEAR_BASE >> 12,
            "pending_dbg": 0,  # Xen reports none so far
            "insn_length": 0 if kind == _HW_EXCEPTION else len(insn.code),
            "type": kind,
        }
        sync = vector == _BREAKPOINT or monitor.debug_exception_sync
        rc = yield from traps(vcpu, sync, reason, values)
    if rc < 0:
        vcpu.domain.crash()
    elif rc == 0:
        vcpu.trap(vector)
        if kind != _HW_EXCEPTION:
            vcpu.retire(insn.end)


def _cpuid(vcpu: Vcpu, insn: Insn) -> int | Exit:
    monitor = vcpu.domain.monitor
    if vcpu.bypass or not (monitor.cpuid or monitor.vmexit):
        _identify(vcpu)
        return insn.end
    return _trapped_cpuid(vcpu, insn)


def _trapped_cpuid(vcpu: Vcpu, insn: Insn) -> Exit:
    if (yield from vmexit(vcpu, _CPUID)):
        return
    leaf, subleaf = (vcpu.regs[name] & 0xFFFFFFFF for name in ("rax", "rcx"))
    _identify(vcpu)
    rc = 0
    if vcpu.domain.monitor.cpuid:
        values = {"insn_length": len(insn.code), "leaf": leaf, "subleaf": subleaf}
        rc = yield from traps(vcpu, True, "cpuid", values)
    if rc < 0:
        vcpu.domain.crash()
    elif rc == 0:
        vcpu.retire(insn.end)
    return


_VENDOR = tuple(int.from_bytes(text, "little") for text in (b"Genu", b"ntel", b"ineI"))
_XEN = tuple(int.from_bytes(text, "little") for text in (b"XenV", b"MMXe", b"nVMM"))


def _identify(vcpu: Vcpu) -> None:
    leaf, subleaf = (vcpu.regs[name] & 0xFFFFFFFF for name in ("rax", "rcx"))
    results = {
        0: (0xD, *_VENDOR),
        1: (0x306C3, 0x10800 | vcpu.vcpu_id << 24, 0xF7FA3203, 0x0F8BFBFF),
        0x40000000: (0x40000005, *_XEN),
        0x80000000: (0x80000008, 0, 0, 0),
    }.get(leaf, (leaf ^ 0x5A5A, subleaf, 0, 0))
    if leaf == 0x40000001:
        major, minor = vcpu.domain.machine.release
        results = (major << 16 | minor, 0, 0, 0)
    vcpu.regs.update(zip(("rax", "rbx", "rcx", "rdx"), results, strict=True))


def _guest_request(vcpu: Vcpu, insn: Insn) -> Exit:
    if (yield from vmexit(vcpu, _VMCALL)):
        return
    monitor = vcpu.domain.monitor
    if vcpu.bypass:
        yield from _unimplemented(vcpu)
        return
    if monitor.guest_request:
        yield from traps(vcpu, monitor.guest_request_sync, "guest_request", {})
    vcpu.regs["rax"] = 0
    vcpu.retire(insn.end)


def _memory(vcpu: Vcpu, insn: Insn) -> int | Exit:
    address = vcpu.regs["rdi"] - LINEAR_BASE
    gfn = address >> 12
    domain = vcpu.domain
    if not domain.has_gfn(gfn):
        vcpu.trap(14)
        return insn.end
    need = _NEED[insn.kind]
    if not vcpu.bypass and _BITS[need] & ~p2m.ALLOWED[domain.access(vcpu.view, gfn)]:
        kind = _IN_GPT if insn.kind == "walk" else _WITH_GLA
        return violation(vcpu, vcpu.regs["rdi"], gfn, address & 0xFFF, need, kind)
    if vcpu.bypass and insn.kind == "exotic":
        return _unimplemented(vcpu)
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
    if (yield from vmexit(vcpu, _EPT)):
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


def _descriptor(vcpu: Vcpu, insn: Insn) -> int | Exit:
    monitor = vcpu.domain.monitor
    if vcpu.bypass or not monitor.descriptor_access:
        if insn.kind == "lgdt":
            vcpu.regs["gdtr_base"] = vcpu.regs["rdi"]
        return insn.end
    return _trapped_descriptor(vcpu, insn)


def _trapped_descriptor(vcpu: Vcpu, insn: Insn) -> Exit:
    if (yield from vmexit(vcpu, _TABLES)):
        return
    values = {
        "instr_info": insn.code[2],
        "exit_qualification": 0,
        "descriptor": _DESCRIPTORS[insn.kind],
        "is_write": int(insn.kind[0] == "l"),
    }
    yield from traps(vcpu, True, "descriptor_access", values)


def _io(vcpu: Vcpu, insn: Insn) -> Exit:
    if (yield from vmexit(vcpu, _IO)):
        return
    rc = 0
    if vcpu.domain.monitor.io:
        port = vcpu.regs["rdx"] & 0xFFFF
        values = {"bytes": 1, "port": port, "in": int(insn.kind == "in"), "str": 0}
        rc = yield from traps(vcpu, True, "io_instruction", values)
    if rc < 0:
        vcpu.domain.crash()
    elif rc == 0:
        if insn.kind == "in":
            vcpu.regs["rax"] = 0xFF
        vcpu.retire(insn.end)


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
        vcpu.trap(_INVALID_OPCODE)
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


def _unimplemented(vcpu: Vcpu) -> Exit:
    """X86EMUL_UNIMPLEMENTED: an event where one is wanted, else #UD for the guest."""
    if vcpu.domain.monitor.emul_unimplemented:
        rc = yield from traps(vcpu, True, "emul_unimplemented", {})
        if rc == 1:
            return
    vcpu.trap(_INVALID_OPCODE)
    insn = vcpu.instruction(vcpu.regs["rip"])
    if insn is not None:
        vcpu.retire(insn.end)
    return


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
    **dict.fromkeys(_CTRLREGS, _ctrlreg),
    "wrmsr": _wrmsr,
    "int3": _int3,
    "icebp": _icebp,
    "hwdb": _hwdb,
    "cpuid": _cpuid,
    "guest_request": _guest_request,
    **dict.fromkeys(_NEED, _memory),
    **dict.fromkeys(_DESCRIPTORS, _descriptor),
    "in": _io,
    "out": _io,
}
