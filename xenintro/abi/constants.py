"""Numbers and names of Xen's public headers that do not change between interface versions."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """Request and response flags, as numbered by vm_event.h (VM_EVENT_FLAG_*, Xen 4.6 to 4.22).

    mem_event numbers them differently: `Interface.flags_to_wire` translates.
    """

    VCPU_PAUSED = 1 << 0
    FOREIGN = 1 << 1
    EMULATE = 1 << 2
    EMULATE_NOWRITE = 1 << 3
    TOGGLE_SINGLESTEP = 1 << 4
    SET_EMUL_READ_DATA = 1 << 5
    DENY = 1 << 6
    ALTERNATE_P2M = 1 << 7
    SET_REGISTERS = 1 << 8
    SET_EMUL_INSN_DATA = 1 << 9
    GET_NEXT_INTERRUPT = 1 << 10
    FAST_SINGLESTEP = 1 << 11
    NESTED_P2M = 1 << 12
    RESET_VMTRACE = 1 << 13
    RESET_FORK_STATE = 1 << 14
    RESET_FORK_MEMORY = 1 << 15


class Access(IntFlag):
    """What a memory access did and how it faulted (MEM_ACCESS_*, vm_event.h)."""

    R = 1 << 0
    W = 1 << 1
    X = 1 << 2
    GLA_VALID = 1 << 3
    FAULT_WITH_GLA = 1 << 4
    FAULT_IN_GPT = 1 << 5


#: VM_EVENT_X86_CR0 .. VM_EVENT_X86_XCR0: the index of a write_ctrlreg event.
CTRLREGS = ("cr0", "cr3", "cr4", "xcr0")

#: VM_EVENT_DESC_*: which descriptor table register was touched.
DESCRIPTORS = {1: "idtr", 2: "gdtr", 3: "ldtr", 4: "tr"}

#: Bits of xc_monitor_get_capabilities (XEN_DOMCTL_MONITOR_EVENT_*, domctl.h).
CAPABILITIES = {
    "write_ctrlreg": 0,
    "mov_to_msr": 1,
    "singlestep": 2,
    "software_breakpoint": 3,
    "guest_request": 4,
    "debug_exception": 5,
    "cpuid": 6,
    "privileged_call": 7,
    "interrupt": 8,
    "descriptor_access": 9,
    "emul_unimplemented": 10,
    "inguest_pagefault": 11,
    "vmexit": 12,
    "io_instruction": 13,
}

#: Model-specific registers by the names people use (Intel SDM volume 4, AMD APM volume 2).
MSRS = {
    "tsc": 0x10,
    "apic_base": 0x1B,
    "spec_ctrl": 0x48,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "misc_enable": 0x1A0,
    "debugctl": 0x1D9,
    "pat": 0x277,
    "tsc_deadline": 0x6E0,
    "efer": 0xC0000080,
    "star": 0xC0000081,
    "lstar": 0xC0000082,
    "cstar": 0xC0000083,
    "sfmask": 0xC0000084,
    "fs_base": 0xC0000100,
    "gs_base": 0xC0000101,
    "kernel_gs_base": 0xC0000102,
    "tsc_aux": 0xC0000103,
}
MSR_NAMES = {number: name for name, number in MSRS.items()}

#: Event types of xc_hvm_inject_trap (X86_EVENTTYPE_*, x86 vmx.h; the numbers of the VMCS field).
TRAP_DEBUG = 1
TRAP_INT3 = 3
NO_ERROR_CODE = 0xFFFFFFFF

#: Bits of control registers, EFER and rflags by the manuals' names (Intel SDM volume 3, 2.5; 1, 3.4.3).
BITS = {
    **{f"CR0_{name}": 1 << bit for name, bit in (("PE", 0), ("TS", 3), ("NE", 5), ("WP", 16), ("PG", 31))},
    **{
        f"CR4_{name}": 1 << bit
        for name, bit in (
            *(("DE", 3), ("PSE", 4), ("PAE", 5), ("MCE", 6), ("PGE", 7), ("PCE", 8), ("UMIP", 11)),
            *(("LA57", 12), ("VMXE", 13), ("FSGSBASE", 16), ("PCIDE", 17), ("OSXSAVE", 18)),
            *(("SMEP", 20), ("SMAP", 21), ("PKE", 22), ("CET", 23), ("PKS", 24)),
        )
    },
    **{
        f"EFER_{name}": 1 << bit
        for name, bit in (("SCE", 0), ("LME", 8), ("LMA", 10), ("NXE", 11), ("SVME", 12))
    },
    **{f"RFLAGS_{name}": 1 << bit for name, bit in (("TF", 8), ("IF", 9), ("NT", 14), ("AC", 18))},
}
