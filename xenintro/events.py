"""What happened: one frozen type per reason, named after the header's reasons and members.

Reasons of mem_event are given the names of vm_event. A member that an older interface lacks is None.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from xenintro.abi import CTRLREGS, DESCRIPTORS, MSR_NAMES, Access, Flag, Interface
from xenintro.registers import Registers

#: Bit 0 of the flags field in every interface; an int because IntFlag is slow on the answer path.
VCPU_PAUSED = int(Flag.VCPU_PAUSED)


class Event(msgspec.Struct, frozen=True, gc=False):
    """What every request says.

    Attributes:
        raw: the slot as it stood on the ring.
        interface: how to read it.
        version: the interface version in the slot; None in mem_event.
        flags: the flags field as it stood in the slot (`flag_names` gives names).
        reason_code: the number of the reason in this interface; None in mem_event 4.0, which has one reason.
        vcpu_id: the vCPU that caused it.
        altp2m_idx: the altp2m view the vCPU was in; None in mem_event.
    """

    reason: ClassVar[str] = "unknown"

    raw: bytes
    interface: Interface
    version: int | None
    flags: int
    reason_code: int | None
    vcpu_id: int
    altp2m_idx: int | None

    @property
    def registers(self) -> Registers:
        """The register snapshot."""
        return Registers(self.raw, self.interface, self.reason)

    @property
    def flag_names(self) -> list[str]:
        """Names of the flags set in the request."""
        return self.interface.names_of(self.flags)

    @property
    def paused(self) -> bool:
        """Whether the vCPU waits for the answer (a synchronous event)."""
        return bool(self.flags & VCPU_PAUSED)


class MemAccess(Event, frozen=True, gc=False):
    """A guest access that page permissions do not allow.

    ``offset`` is in bytes within the page; ``gla`` is meaningful only if `gla_valid`.
    """

    reason: ClassVar[str] = "mem_access"

    gfn: int
    offset: int
    gla: int
    access_flags: int

    @property
    def access(self) -> str:
        """What was violated: letters of ``rwx``."""
        flags = self.access_flags
        return "".join(letter for bit, letter in enumerate("rwx") if flags >> bit & 1)

    @property
    def gla_valid(self) -> bool:
        """Whether ``gla`` is the guest linear address of the access."""
        return bool(self.access_flags & Access.GLA_VALID)

    @property
    def fault_with_gla(self) -> bool:
        """The access itself faulted (not the page walk)."""
        return bool(self.access_flags & Access.FAULT_WITH_GLA)

    @property
    def fault_in_gpt(self) -> bool:
        """The walk of the guest's page tables faulted."""
        return bool(self.access_flags & Access.FAULT_IN_GPT)


class MemPaging(Event, frozen=True, gc=False):
    """A page that was paged out is needed (paging ring)."""

    reason: ClassVar[str] = "mem_paging"

    gfn: int
    p2mt: int
    paging_flags: int | None


class MemSharing(Event, frozen=True, gc=False):
    """Unsharing a page failed for lack of memory (sharing ring)."""

    reason: ClassVar[str] = "mem_sharing"

    gfn: int
    p2mt: int


class WriteCtrlreg(Event, frozen=True, gc=False):
    """A write to a control register.

    On Xen 4.5 the event comes after the write, later before it; ``old_value`` is None up to Xen 4.4.
    """

    reason: ClassVar[str] = "write_ctrlreg"

    index: int
    new_value: int
    old_value: int | None

    @property
    def register(self) -> str:
        """``cr0``, ``cr3``, ``cr4`` or ``xcr0``."""
        return CTRLREGS[self.index] if self.index < len(CTRLREGS) else f"ctrlreg{self.index}"


class MovToMsr(Event, frozen=True, gc=False):
    """A WRMSR. ``old_value`` is None before vm_event-3 (Xen 4.11)."""

    reason: ClassVar[str] = "mov_to_msr"

    msr: int
    new_value: int
    old_value: int | None

    @property
    def register(self) -> str:
        """The MSR's name, or its number in hexadecimal."""
        return MSR_NAMES.get(self.msr, f"{self.msr:#x}")


class SoftwareBreakpoint(Event, frozen=True, gc=False):
    """An INT3. ``gfn`` is that of rip; ``insn_length`` and ``type`` came with Xen 4.8."""

    reason: ClassVar[str] = "software_breakpoint"

    gfn: int
    pending_dbg: int | None
    insn_length: int | None
    type: int | None


class DebugException(Event, frozen=True, gc=False):
    """A #DB. ``pending_dbg`` came with Xen 4.14."""

    reason: ClassVar[str] = "debug_exception"

    gfn: int
    pending_dbg: int | None
    insn_length: int | None
    type: int | None


class Singlestep(Event, frozen=True, gc=False):
    """One instruction was executed (VMX monitor trap flag)."""

    reason: ClassVar[str] = "singlestep"

    gfn: int


class GuestRequest(Event, frozen=True, gc=False):
    """The guest asked for an event (HVMOP_guest_request_vm_event)."""

    reason: ClassVar[str] = "guest_request"


class Cpuid(Event, frozen=True, gc=False):
    """A CPUID; the registers of the snapshot hold its results already."""

    reason: ClassVar[str] = "cpuid"

    insn_length: int
    leaf: int
    subleaf: int


class PrivilegedCall(Event, frozen=True, gc=False):
    """An SMC on Arm."""

    reason: ClassVar[str] = "privileged_call"


class Interrupt(Event, frozen=True, gc=False):
    """The next interrupt that will be delivered to the vCPU."""

    reason: ClassVar[str] = "interrupt"

    vector: int
    type: int
    error_code: int
    cr2: int


class DescriptorAccess(Event, frozen=True, gc=False):
    """An access to GDTR, IDTR, LDTR or TR."""

    reason: ClassVar[str] = "descriptor_access"

    instr_info: int
    exit_qualification: int
    descriptor: int
    is_write: int

    @property
    def register(self) -> str:
        """``idtr``, ``gdtr``, ``ldtr`` or ``tr``."""
        return DESCRIPTORS.get(self.descriptor, f"descriptor{self.descriptor}")


class EmulUnimplemented(Event, frozen=True, gc=False):
    """Xen's emulator does not know the instruction that it was asked to emulate."""

    reason: ClassVar[str] = "emul_unimplemented"


class Vmexit(Event, frozen=True, gc=False):
    """Any VM exit. ``exit_reason`` is the header's member ``reason``."""

    reason: ClassVar[str] = "vmexit"

    exit_reason: int
    qualification: int


class IoInstruction(Event, frozen=True, gc=False):
    """An IN or OUT. ``is_in`` and ``is_str`` are the header's members ``in`` and ``str``."""

    reason: ClassVar[str] = "io_instruction"

    bytes: int
    port: int
    is_in: int
    is_str: int


class UnknownEvent(Event, frozen=True, gc=False):
    """A reason or interface version that this xenintro does not know: kept raw, answered plainly."""


#: Every type by its reason.
EVENT_TYPES: dict[str, type[Event]] = {
    kind.reason: kind
    for kind in (
        *(MemAccess, MemPaging, MemSharing, WriteCtrlreg, MovToMsr, SoftwareBreakpoint, Singlestep),
        *(GuestRequest, DebugException, Cpuid, PrivilegedCall, Interrupt, DescriptorAccess),
        *(EmulUnimplemented, Vmexit, IoInstruction, UnknownEvent),
    )
}
