"""The one vocabulary: every field of an event and of its answer, as data.

Filters, rules, ``--format fields``, JSON lines, exports and Wireshark call them by these names. A payload's
fields are called ``reason.key``, registers ``regs.name``, what every event has by its plain name.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from xenintro.abi import (
    ARCHITECTURES,
    CTRLREGS,
    DESCRIPTORS,
    INTERFACE_IDS,
    MSR_NAMES,
    Access,
    interface,
)
from xenintro.events import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Field(NamedTuple):
    """One field.

    Attributes:
        name: as it is written: ``mem_access.gfn``, ``regs.rip``, ``vcpu_id``.
        kind: ``int``, ``bool``, ``string`` or ``names`` (a list of strings).
        meaning: one line.
        bits: width of an int; those of 64 bits are shown in hexadecimal.
        unit: what an int counts or is: ``gfn``, ``address``, ``bytes``, ``ns``; empty for a bare number.
        values: all that a string can be; empty if that is open.
        reason: of the events that have it; None for all.
        of: ``event``, ``registers``, ``guest``, ``answered`` (what became of the event: known to filters and
            outputs, not to rules), or ``output`` (known to outputs only).
        key: where it is read: the event's or the answered request's attribute, or the register.
        members: the header's names for it, of which an interface has one or none; empty if all have it.
        bit: for a flag, or a letter of an access: its name in the interface, its mask.
    """

    name: str
    kind: str
    meaning: str
    bits: int = 0
    unit: str = ""
    values: tuple[str, ...] = ()
    reason: str | None = None
    of: str = "event"
    key: str = ""
    members: tuple[str, ...] = ()
    bit: str | int = ""

    @property
    def plain(self) -> str:
        """Its name without the reason or ``regs``."""
        prefix, _, rest = self.name.partition(".")
        return rest if prefix in EVENT_TYPES or prefix == "regs" else self.name


def _int(
    key: str, bits: int, meaning: str, *, unit: str = "", member: str = "", attribute: str = ""
) -> Field:
    """A payload's number; ``member`` and ``attribute`` where header or event call it otherwise."""
    members = tuple((member or key).split("|"))
    return Field(key, "int", meaning, bits, unit, key=attribute or key, members=members)


def _register_name(values: tuple[str, ...], member: str, meaning: str) -> Field:
    return Field("register", "string", meaning, values=values, key="register", members=(member,))


def _access_bit(name: str, bit: Access, meaning: str, member: str = "flags|gla_valid") -> Field:
    return Field(name, "bool", meaning, key="access_flags", members=tuple(member.split("|")), bit=int(bit))


_ACCESS = tuple("".join(s for n, s in enumerate("rwx") if number >> n & 1) for number in range(8))

_GFN = _int("gfn", 64, "page of the instruction, all ones if unknown", unit="gfn")
_TRAP = (
    _GFN,
    _int("pending_dbg", 64, "pending debug exceptions"),
    _int("insn_length", 32, "length of the instruction", unit="bytes"),
    _int("type", 8, "X86_EVENTTYPE_*"),
)
_VALUES = (
    _int("new_value", 64, "value written", member="new_value|value"),
    _int("old_value", 64, "value before"),
)

#: Payloads by reason, with keys for names.
_PAYLOADS: Mapping[str, tuple[Field, ...]] = {
    "mem_access": (
        _int("gfn", 64, "page that was accessed", unit="gfn"),
        _int("offset", 64, "offset of the access in its page", unit="bytes"),
        _int("gla", 64, "linear address of the access, if gla_valid", unit="address"),
        _int("flags", 32, "MEM_ACCESS_*", member="flags|access_r", attribute="access_flags"),
        Field(
            "access",
            "string",
            "what was violated: letters of rwx",
            values=_ACCESS,
            key="access",
            members=("flags", "access_r"),
        ),
        _access_bit("access.r", Access.R, "it reads", "flags|access_r"),
        _access_bit("access.w", Access.W, "it writes", "flags|access_r"),
        _access_bit("access.x", Access.X, "it executes", "flags|access_r"),
        _access_bit("gla_valid", Access.GLA_VALID, "gla is known"),
        _access_bit("fault_with_gla", Access.FAULT_WITH_GLA, "the access itself faulted, not the walk"),
        _access_bit("fault_in_gpt", Access.FAULT_IN_GPT, "the walk of the guest's page tables faulted"),
    ),
    "mem_paging": (
        _int("gfn", 64, "page that is needed", unit="gfn"),
        _int("p2mt", 32, "its p2m type"),
        _int("flags", 32, "MEM_PAGING_*", attribute="paging_flags"),
    ),
    "mem_sharing": (
        _int("gfn", 64, "page that cannot be unshared", unit="gfn"),
        _int("p2mt", 32, "its p2m type"),
    ),
    "write_ctrlreg": (
        _int("index", 32, "VM_EVENT_X86_CR0, _CR3, _CR4, _XCR0"),
        _register_name(CTRLREGS, "index", "the control register"),
        *_VALUES,
    ),
    "mov_to_msr": (
        _int("msr", 64, "number of the MSR; compares with names too: msr == LSTAR"),
        _register_name(tuple(MSR_NAMES.values()), "msr", "the MSR's name, or its number in hexadecimal"),
        *_VALUES,
    ),
    "software_breakpoint": _TRAP,
    "debug_exception": _TRAP,
    "singlestep": (_GFN,),
    "cpuid": (
        _int("insn_length", 32, "length of the instruction", unit="bytes"),
        _int("leaf", 32, "eax before"),
        _int("subleaf", 32, "ecx before"),
    ),
    "interrupt": (
        _int("vector", 32, "vector that will be delivered"),
        _int("type", 32, "X86_EVENTTYPE_*"),
        _int("error_code", 32, "error code, all ones if none"),
        _int("cr2", 64, "cr2 of a page fault", unit="address"),
    ),
    "descriptor_access": (
        _int("instr_info", 32, "VMX instruction information"),
        _int("exit_qualification", 64, "VMX exit qualification"),
        _int("descriptor", 8, "VM_EVENT_DESC_*"),
        _register_name(tuple(DESCRIPTORS.values()), "descriptor", "the descriptor table register"),
        _int("is_write", 8, "1 if it is written"),
    ),
    "vmexit": (
        _int("reason", 64, "exit reason", attribute="exit_reason"),
        _int("qualification", 64, "exit qualification"),
    ),
    "io_instruction": (
        _int("bytes", 32, "width of the access", unit="bytes"),
        _int("port", 16, "port"),
        _int("in", 8, "1 for IN", attribute="is_in"),
        _int("str", 8, "1 for a string instruction", attribute="is_str"),
    ),
    "unknown": (
        Field("version", "int", "interface version in the slot", 32, key="version", members=("version",)),
        Field("reason_code", "int", "reason in the slot", 32, key="reason_code", members=("reason",)),
        Field("raw", "string", "the slot in hexadecimal", key="raw"),
    ),
}

_FLAGS = (
    ("vcpu_paused", "the vCPU waits for the answer"),
    ("foreign", "the page is another domain's"),
    ("emulate", "emulation was asked for"),
    ("emulate_nowrite", "emulation without its writes was asked for"),
    ("toggle_singlestep", "single-stepping was toggled"),
    ("set_emul_read_data", "emulation with other read data was asked for"),
    ("deny", "denial was asked for"),
    ("alternate_p2m", "altp2m_idx is meaningful"),
    ("set_registers", "registers were set"),
    ("set_emul_insn_data", "emulation of other bytes was asked for"),
    ("get_next_interrupt", "the next interrupt was asked for"),
    ("fast_singlestep", "a fast single-step was asked for"),
    ("nested_p2m", "the vCPU runs a nested guest"),
    ("reset_vmtrace", "the processor trace was to be reset"),
    ("reset_fork_state", "the fork's state was to be reset"),
    ("reset_fork_memory", "the fork's memory was to be reset"),
    ("drop_page", "the page was dropped (paging)"),
    ("evict_fail", "the page could not be evicted (paging)"),
    ("dummy", "a request without content (paging)"),
    ("dom_paused", "the domain waits for the answer (Xen 4.0)"),
    ("out_of_mem", "the host has no memory left (Xen 4.0)"),
)

_COMMON = (
    Field("abi", "string", "interface of the slot", values=INTERFACE_IDS, key="interface.id"),
    Field("arch", "string", "architecture", values=ARCHITECTURES, key="interface.arch"),
    Field("vcpu_id", "int", "the vCPU", 32, key="vcpu_id"),
    Field("reason", "string", "what happened", values=tuple(EVENT_TYPES), key="reason"),
    Field("flags", "names", "flags of the request", key="flag_names"),
    *(Field(f"flags.{name}", "bool", meaning, key="flags", bit=name) for name, meaning in _FLAGS),
    Field("altp2m_idx", "int", "altp2m view of the vCPU", 16, key="altp2m_idx", members=("altp2m_idx",)),
    Field("domid", "int", "the domain", 16, of="guest", key="domid"),
    Field("domain", "string", "name of the domain", of="guest", key="name"),
    Field("answer", "string", "what was answered", of="answered", key="answer"),
    Field("would", "string", "what a policy answered that is only observed", of="answered", key="would"),
    Field("rule", "string", "the rule that had a say", of="answered", key="rule.name"),
    Field("level", "string", "how much that rule matters", of="answered", key="rule.level"),
    Field("tags", "names", "what that rule is filed under", of="answered", key="rule.tags"),
    Field("late", "bool", "the deadline thread let it happen", of="answered", key="late"),
    Field("pause_ns", "int", "how long the vCPU waited", 63, "ns", of="answered", key="pause_ns"),
    Field("message", "string", "what the rule says", of="output"),
    Field("ts", "string", "when the request was taken, UTC", of="output"),
    Field("seq", "int", "counts the lines, from 0", 63, of="output"),
)

_GENERAL = "rax rcx rdx rbx rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
_SEGMENTS = "cs ss ds es fs gs".split()

#: Registers: width, unit, meaning.
_REGISTERS: Mapping[str, tuple[int, str, str]] = {
    **dict.fromkeys(_GENERAL, (64, "", "general register")),
    "rsp": (64, "address", "stack pointer"),
    "rip": (64, "address", "the instruction"),
    "rflags": (64, "", "flags register"),
    **dict.fromkeys(("cr0", "cr3", "cr4"), (64, "", "control register")),
    "cr2": (64, "address", "address of the last page fault"),
    **dict.fromkeys(("dr6", "dr7"), (64, "", "debug register")),
    "sysenter_cs": (64, "", "MSR SYSENTER_CS"),
    "sysenter_esp": (64, "address", "MSR SYSENTER_ESP"),
    "sysenter_eip": (64, "address", "MSR SYSENTER_EIP"),
    "msr_efer": (64, "", "MSR EFER"),
    "msr_star": (64, "", "MSR STAR"),
    "msr_lstar": (64, "address", "MSR LSTAR"),
    "shadow_gs": (64, "address", "MSR KERNEL_GS_BASE"),
    "gdtr_base": (64, "address", "base of the GDT"),
    "gdtr_limit": (16, "bytes", "limit of the GDT"),
    "npt_base": (64, "", "gfn of the nested page table's root"),
    "vmtrace_pos": (64, "", "position in the processor trace"),
    "cs_arbytes": (32, "", "access rights of cs as VMX has them"),
    **{
        f"{name}_base": (64 if name in ("fs", "gs") else 32, "address", f"base of {name}")
        for name in _SEGMENTS
    },
    **{f"{name}_sel": (16, "", f"selector of {name}") for name in _SEGMENTS},
    **{f"{name}.limit": (20, "", f"limit of {name}, in pages if the G bit is set") for name in _SEGMENTS},
    **{f"{name}.ar": (12, "", f"access rights of {name}, packed as Xen does") for name in _SEGMENTS},
    "ttbr0": (64, "", "TTBR0_EL1 (Arm)"),
    "ttbr1": (64, "", "TTBR1_EL1 (Arm)"),
    "ttbcr": (64, "", "TCR_EL1 (Arm)"),
    "pc": (64, "address", "the instruction (Arm)"),
    "cpsr": (64, "", "program status (Arm)"),
}


def _all() -> Iterator[Field]:
    yield from _COMMON
    for reason, fields in _PAYLOADS.items():
        for field in fields:
            yield field._replace(name=f"{reason}.{field.name}", reason=reason)
    for name, (bits, unit, meaning) in _REGISTERS.items():
        yield Field(f"regs.{name}", "int", meaning, bits, unit, of="registers", key=name)


#: Every field by its name.
FIELDS: Mapping[str, Field] = {field.name: field for field in _all()}


@cache
def plain_fields(reason: str) -> Mapping[str, Field]:
    """What plain names mean for events of one reason: what all events have, the payload, registers."""
    fields = [
        *(field for field in FIELDS.values() if field.of == "registers"),
        *(field for field in FIELDS.values() if field.reason == reason),
        *_COMMON,
    ]
    return {field.plain: field for field in fields}


@cache
def interfaces_of(name: str) -> tuple[str, ...]:
    """Ids of the interfaces that have a field; for a payload's field, of those that have its events."""
    field = FIELDS[name]
    return tuple(one for one in interfaces_with(field.reason) if _has(field, one))


def always_there(field: Field) -> bool:
    """Whether every event that can have the field has it."""
    if field.of == "registers" or field.name in _MAYBE:
        return False
    return not field.members or interfaces_of(field.name) == interfaces_with(field.reason)


#: Absent for reasons of their own: no name known, no rule had a say, nobody waited.
_MAYBE = frozenset({"domid", "domain", "would", "rule", "level", "tags", "pause_ns"})


def interfaces_with(reason: str | None) -> tuple[str, ...]:
    """Ids of the interfaces that have events of a reason."""
    if reason in (None, "unknown"):
        return INTERFACE_IDS
    return tuple(
        one for one in INTERFACE_IDS if reason in (interface(one).reasons.values() or interface(one).payloads)
    )


def _has(field: Field, interface_id: str) -> bool:
    layouts = [interface(interface_id, arch) for arch in ARCHITECTURES]
    if field.of == "registers":
        return any(field.key.partition(".")[0] in layout.registers for layout in layouts)
    if isinstance(field.bit, str) and field.bit:
        return field.bit in layouts[0].flag_names.values()
    layout = layouts[0]
    if not field.members or (field.members == ("index",) and layout.register_index):
        return True
    named = layout.header if field.reason in (None, "unknown") else layout.payloads[field.reason]
    return any(member in named for member in field.members)
