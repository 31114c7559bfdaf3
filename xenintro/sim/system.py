"""Instructions that Xen traps for a monitor: control registers, MSRs, exceptions, CPUID, descriptors, I/O.

Each returns the address of the next instruction when nobody watches it, else a generator that exits to
Xen: hvm/vmx/vmx.c:vmx_vmexit_handler and hvm/monitor.c of the release that is played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.sim import state
from xenintro.sim.events import traps, vmexit
from xenintro.sim.program import LINEAR_BASE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from xenintro.sim.program import Insn
    from xenintro.sim.vcpu import Vcpu

    Exit = Generator[None, None, None]
    Kind = Callable[[Vcpu, Insn], int | Exit]

_CTRLREGS = {"cr0": 0, "cr3": 1, "cr4": 2, "xcr0": 3}
_DESCRIPTORS = {"sidt": 1, "lidt": 1, "sgdt": 2, "lgdt": 2, "sldt": 3, "lldt": 3, "str": 4, "ltr": 4}

_BREAKPOINT, _DEBUG = 3, 1
INVALID_OPCODE = 6
_HW_EXCEPTION, _PRIVILEGED, _SOFTWARE = 3, 5, 6  # X86_EVENTTYPE_*

# Basic exit reasons of the VMCS (Intel SDM, appendix C).
_EXCEPTION, _CPUID, _VMCALL, _CR, _IO, _WRMSR = 0, 10, 18, 28, 30, 32
_TABLES, _XSETBV = 46, 55


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
        yield from unimplemented(vcpu)
        return
    if monitor.guest_request:
        yield from traps(vcpu, monitor.guest_request_sync, "guest_request", {})
    vcpu.regs["rax"] = 0
    vcpu.retire(insn.end)


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


def unimplemented(vcpu: Vcpu) -> Exit:
    """X86EMUL_UNIMPLEMENTED: an event where one is wanted, else #UD for the guest."""
    if vcpu.domain.monitor.emul_unimplemented:
        rc = yield from traps(vcpu, True, "emul_unimplemented", {})
        if rc == 1:
            return
    vcpu.trap(INVALID_OPCODE)
    insn = vcpu.instruction(vcpu.regs["rip"])
    if insn is not None:
        vcpu.retire(insn.end)
    return


SYSTEM: dict[str, Kind] = {
    **dict.fromkeys(_CTRLREGS, _ctrlreg),
    "wrmsr": _wrmsr,
    "int3": _int3,
    "icebp": _icebp,
    "hwdb": _hwdb,
    "cpuid": _cpuid,
    "guest_request": _guest_request,
    **dict.fromkeys(_DESCRIPTORS, _descriptor),
    "in": _io,
    "out": _io,
}
