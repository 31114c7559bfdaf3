"""The constants that the guest is assembled with and the tests compare events with."""

from __future__ import annotations

HIGH = 0xFFFF_8000_0000_0000  #: where the guest maps everything a second time: gla differs from gpa

#: How often each kind happens (some are pairs: there and back again).
TIMES = {
    "N_CR0": 3, "N_CR3": 8, "N_CR4": 4, "N_XCR0": 2, "N_MSR": 5, "N_CPUID": 6, "N_INT3": 7,
    "N_TRAP": 4, "N_ICEBP": 3, "N_REQUEST": 9, "N_STEP": 20, "N_READ": 5, "N_WRITE": 6,
    "N_EXEC": 4, "N_IPI": 3, "N_BENCH": 64, "N_HELD": 6, "N_ASK": 3,
}  # fmt: skip

#: Physical addresses: plain memory that no one else uses (PML4_B follows PML4_A by a page).
PLACES = {
    "PML4_A": 0x11_0000, "PML4_B": 0x11_1000, "IDT": 0x40_0000, "TSS": 0x40_1000,
    "HYPERCALLS": 0x40_2000, "STACKS": 0x42_0000, "PAGE_READ": 0x40_8000,
    "PAGE_WRITE": 0x40_9000, "PAGE_EXEC": 0x40_A000, "PROGRESS": 0x40_B000, "SAMPLES": 0x50_0000,
    "OFF_READ": 0x123, "OFF_WRITE": 0x456, "OFF_EXEC": 0x789,
}  # fmt: skip

_VALUES = {
    "HIGH": HIGH,
    "CR0_BOOT": 0x8001_0031, "CR4_BOOT": 0x220,
    "SEL_SS": 0x10, "SEL_CS": 0x18, "SEL_DS": 0x20, "SEL_ES": 0x28, "SEL_FS": 0x30,
    "SEL_GS": 0x38, "SEL_TSS": 0x40, "ES_BASE": 0x00AB_C000, "ES_LIMIT": 0x4321,
    "MSR_HIGH": 0xFFFF_8000, "MSR_LOW": 0x1234_5000,
    "CPUID_LEAF": 0x4000_0000, "CPUID_SUBLEAF": 0x77,
    "ASKED": 0x0A5C_ED00, "FORGED": 0xF0_26ED,
    "VECTOR_IPI": 0x50, "VECTOR_BEAT": 0x60, "SAMPLE_COUNT": 0x1000, "MAX_VCPUS": 16,
}  # fmt: skip

#: What the kind "regs" sets before its two requests, by the snapshot's own names.
REGISTERS = {
    "rbx": 0xB0B0_1111_2222_3333, "rcx": 0xC0C0_1111_2222_3333, "rdx": 0xD0D0_1111_2222_3333,
    "rbp": 0xBBBB_5555_6666_7777, "rsp": HIGH + 0x40_5800,
    "r8": 0x0808_A5A5_5A5A_0808, "r9": 0x0909_A5A5_5A5A_0909, "r10": 0x1010_A5A5_5A5A_1010,
    "r11": 0x1111_A5A5_5A5A_1111, "r12": 0x1212_A5A5_5A5A_1212, "r13": 0x1313_A5A5_5A5A_1313,
    "r14": 0x1414_A5A5_5A5A_1414, "r15": 0x1515_A5A5_5A5A_1500,
    "rflags": 0xCD7, "cr2": 0xFFFF_8000_0BAD_0BAD, "dr7": 0x408, "msr_efer": 0xD01,
    "sysenter_cs": 0x5C5C, "sysenter_esp": 0xFFFF_8000_0E5E_0E50,
    "sysenter_eip": 0xFFFF_8000_0E1E_0E10, "msr_star": 0x0023_0010_0000_0000,
    "msr_lstar": 0xFFFF_8000_0157_A000, "fs_base": 0xFFFF_8000_0F50_0F50,
    "gs_base": 0xFFFF_8000_0650_0650, "shadow_gs": 0xFFFF_8000_0550_0550,
}  # fmt: skip

#: What the guest itself counts and says after "lab: done", in this order.
TALLIES = (
    *("int3", "trap", "icebp", "ipi", "cpuid", "desc"),
    *("held_cr4", "held_msr", "asked", "forged", "unwritten"),
)


def symbols() -> dict[str, int]:
    """Every constant of the assembly."""
    tallies = {f"C_{name.upper()}": index for index, name in enumerate(TALLIES)}
    registers = {f"R_{name.upper()}": value for name, value in REGISTERS.items()}
    counters = {"COUNTERS": len(TALLIES)}
    return {**TIMES, **PLACES, **_VALUES, **tallies, **counters, **registers}


def value(name: str) -> int:
    """One constant by its name in the assembly."""
    return symbols()[name]
