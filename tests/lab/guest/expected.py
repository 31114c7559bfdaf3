"""Which events a run of the guest causes, in order and with their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.lab.guest.facts import TIMES, value

BOTH, VMX = ("vmx", "svm"), ("vmx",)


@dataclass(frozen=True)
class Want:
    """One event: its reason, and the payload members whose values are known."""

    reason: str
    payload: dict[str, object] = field(default_factory=dict)


@dataclass
class _Cpu:
    """The registers of a vCPU as the guest leaves them: an event tells the old value too."""

    cr0: int = 0x11
    cr3: int = 0
    cr4: int = 0
    xcr0: int = 0
    lstar: int = 0

    def set(self, register: str, new: int) -> Want:
        index = ("cr0", "cr3", "cr4", "xcr0").index(register)
        old = getattr(self, register)
        setattr(self, register, new)
        values = {"index": index, "register": register, "new_value": new, "old_value": old}
        return Want("write_ctrlreg", values)

    def msr(self, new: int) -> Want:
        old, self.lstar = self.lstar, new
        return Want("mov_to_msr", {"msr": 0xC000_0082, "new_value": new, "old_value": old})


def _boot(cpu: _Cpu) -> Iterator[Want]:
    yield _descriptor("gdtr", write=True)
    yield cpu.set("cr4", value("CR4_BOOT"))
    yield cpu.set("cr3", value("PML4_A"))
    yield cpu.set("cr0", value("CR0_BOOT"))
    yield _descriptor("idtr", write=True)


def _toggle(register: str, bit: int, times: str) -> Callable[[_Cpu], Iterator[Want]]:
    def kind(cpu: _Cpu) -> Iterator[Want]:
        for _ in range(2 * TIMES[times]):
            yield cpu.set(register, getattr(cpu, register) ^ (1 << bit))

    return kind


def _cr3(cpu: _Cpu) -> Iterator[Want]:
    for _ in range(TIMES["N_CR3"]):
        yield cpu.set("cr3", value("PML4_B"))
        yield cpu.set("cr3", value("PML4_A"))


def _xcr0(cpu: _Cpu) -> Iterator[Want]:
    yield cpu.set("cr4", cpu.cr4 | 1 << 18)
    for _ in range(TIMES["N_XCR0"]):
        yield cpu.set("xcr0", 3)
        yield cpu.set("xcr0", 1)
    yield cpu.set("cr4", cpu.cr4 & ~(1 << 18))


def _msr(cpu: _Cpu) -> Iterator[Want]:
    first = value("MSR_HIGH") << 32 | value("MSR_LOW")
    yield from (cpu.msr(first + count) for count in range(TIMES["N_MSR"]))


def _same(times: str, reason: str, **payload: object) -> Callable[[_Cpu], Iterator[Want]]:
    def kind(_: _Cpu) -> Iterator[Want]:
        yield from [Want(reason, payload)] * TIMES[times]

    return kind


def _access(times: str, access: str, page: str, offset: str) -> Callable[[_Cpu], Iterator[Want]]:
    place, inside = value(page), value(offset)
    return _same(
        times, "mem_access", access=access, gfn=place >> 12, offset=inside,
        gla=value("HIGH") + place + inside,
    )  # fmt: skip


def _descriptor(which: str, *, write: bool) -> Want:
    index = ("idtr", "gdtr", "ldtr", "tr").index(which) + 1  # VM_EVENT_DESC_*
    values = {"descriptor": index, "register": which, "is_write": int(write)}
    return Want("descriptor_access", values)


def _desc(_: _Cpu) -> Iterator[Want]:
    for which in ("gdtr", "idtr", "ldtr", "tr"):
        yield _descriptor(which, write=False)
        yield _descriptor(which, write=True)


def _regs(cpu: _Cpu) -> Iterator[Want]:
    yield cpu.msr(value("R_MSR_LSTAR"))
    yield from [Want("guest_request")] * 2


def _step(_: _Cpu) -> Iterator[Want]:
    yield from [Want("guest_request")] * 2


@dataclass(frozen=True)
class Kind:
    """One word of the guest's command line and the option of watch -e that sees its events."""

    watch: str
    events: Callable[[_Cpu], Iterator[Want]]
    cpus: tuple[str, ...] = BOTH  #: the emulators that report it


#: On QEMU 7.2's SVM: XSETBV and INT3 are not intercepted, icebp becomes #UD. mem_access needs VMX
#: (p2m_mem_access_sanity_check, 4.6 to 4.22), where a write is reported as a read too (measured on
#: 4.17 as an event's flags R|W; xen/arch/x86/hvm/vmx/vmx.c: ept_handle_violation).
KINDS = {
    "cr0": Kind("cr0", _toggle("cr0", 18, "N_CR0")),
    "cr3": Kind("cr3", _cr3),
    "cr4": Kind("cr4", _toggle("cr4", 7, "N_CR4")),
    "xcr0": Kind("xcr0,cr4", _xcr0, VMX),
    "msr": Kind("msr:lstar", _msr),
    "cpuid": Kind(
        "cpuid",
        _same("N_CPUID", "cpuid", leaf=value("CPUID_LEAF"), subleaf=value("CPUID_SUBLEAF"),
              insn_length=2),
    ),
    "int3": Kind("int3", _same("N_INT3", "software_breakpoint", insn_length=1, type=6), VMX),
    "trap": Kind("debug", _same("N_TRAP", "debug_exception", insn_length=0, type=3)),
    "icebp": Kind("debug", _same("N_ICEBP", "debug_exception", insn_length=1, type=5), VMX),
    "request": Kind("guest-request", _same("N_REQUEST", "guest_request")),
    "desc": Kind("desc", _desc),
    "read": Kind(
        f"mem:r@{value('PAGE_READ') >> 12:#x}",
        _access("N_READ", "r", "PAGE_READ", "OFF_READ"), VMX,
    ),
    "write": Kind(
        f"mem:w@{value('PAGE_WRITE') >> 12:#x}",
        _access("N_WRITE", "rw", "PAGE_WRITE", "OFF_WRITE"), VMX,
    ),
    "exec": Kind(
        f"mem:x@{value('PAGE_EXEC') >> 12:#x}",
        _access("N_EXEC", "x", "PAGE_EXEC", "OFF_EXEC"), VMX,
    ),
    "regs": Kind("guest-request,msr:lstar", _regs),
    "step": Kind("guest-request", _step),
}  # fmt: skip


def events(line: str, watched: str) -> list[Want]:
    """What `watch -e watched` must see of vCPU 0 when the guest boots with these words."""
    cpu = _Cpu()
    everything = [*_boot(cpu), *(want for word in line.split() for want in KINDS[word].events(cpu))]
    seen = {item.split(":")[0] for item in watched.split(",")}
    return [want for want in everything if _option(want) in seen]


def _option(want: Want) -> str:
    """The event option that arms what this event reports."""
    options = {
        "write_ctrlreg": str(want.payload.get("register")), "mov_to_msr": "msr",
        "mem_access": "mem", "software_breakpoint": "int3", "debug_exception": "debug",
        "descriptor_access": "desc", "guest_request": "guest-request",
    }  # fmt: skip
    return options.get(want.reason, want.reason)


def alone(cpu: str) -> list[str]:
    """The words that deserve a run of their own: all on the quick emulator, else what only this one has."""
    return [word for word, kind in KINDS.items() if kind.cpus[-1] == cpu]


def watch_all(cpu: str) -> tuple[str, str]:
    """All words whose events this emulator reports, and the events option that sees them."""
    words = [word for word, kind in KINDS.items() if cpu in kind.cpus]
    options = ",".join(KINDS[word].watch for word in words).split(",")
    return " ".join(words), ",".join(dict.fromkeys(options))
