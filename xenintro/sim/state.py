"""Registers of a vCPU as they are at first, and how they travel in a request."""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.abi import Field, Interface

_GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))

#: What SET_REGISTERS changes in any release, and nothing else (arch/x86/vm_event.c).
SETTABLE = (*_GENERAL, "rflags", "rip")

#: MSRs whose value is part of the snapshot.
MSR_REGISTERS = {
    0x174: "sysenter_cs",
    0x175: "sysenter_esp",
    0x176: "sysenter_eip",
    0xC0000080: "msr_efer",
    0xC0000081: "msr_star",
    0xC0000082: "msr_lstar",
    0xC0000100: "fs_base",
    0xC0000101: "gs_base",
    0xC0000102: "shadow_gs",
}

# Flat segments of a 64-bit kernel: {limit:20, ar:12}, limit in pages.
_CODE_SEGMENT = 0xA9B << 20 | 0xFFFFF
_DATA_SEGMENT = 0xC93 << 20 | 0xFFFFF

_INITIAL = {
    **dict.fromkeys(_GENERAL, 0),
    "rsp": 0xFFFF_8000_0000_9000,
    "rflags": 0x202,
    "dr6": 0,  # 27225bbb6d: nobody fills it in any release that has it
    "dr7": 0x400,
    "cr0": 0x80050033,
    "cr2": 0,
    "cr3": 0x101000,
    "cr4": 0x6A0,
    "sysenter_cs": 0x10,
    "sysenter_esp": 0,
    "sysenter_eip": 0xFFFF_8000_0010_8000,
    "msr_efer": 0xD01,
    "msr_star": 0x0023_0010_0000_0000,
    "msr_lstar": 0xFFFF_8000_0010_9000,
    "fs_base": 0,
    "gs_base": 0xFFFF_8000_0000_A000,
    "shadow_gs": 0,
    "cs_arbytes": 0xA9B,
    "gdtr_base": 0xFFFF_8000_0000_2000,
    "gdtr_limit": 0x7F,
    "npt_base": 0,
    "vmtrace_pos": 0xFFFF_FFFF_FFFF_FFFF,
    **dict.fromkeys(("cs_base", "ss_base", "ds_base", "es_base"), 0),
    "cs": _CODE_SEGMENT,
    **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), _DATA_SEGMENT),
    "cs_sel": 0x10,
    **dict.fromkeys(("ss_sel", "ds_sel", "es_sel", "fs_sel", "gs_sel"), 0x18),
}

#: Stands for a register that this release leaves unfilled.
_ZERO = "zero"


def initial_registers(rip: int) -> dict[str, int]:
    """The registers of a vCPU in a running kernel."""
    return {**_INITIAL, "rip": rip, _ZERO: 0}


class SlotWriter:
    """Builds request slots of one interface: a compiled layout per reason."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._codes = {name: code for code, name in interface.reasons.items()}
        self._header = struct.Struct("<IIIIH")
        self._payloads: dict[str, Callable[[dict[str, Any]], bytes]] = {}
        self._registers: dict[str, Callable[[dict[str, int]], bytes]] = {}
        registers = interface.registers
        assert [registers[name].offset for name in SETTABLE] == sorted(
            registers[name].offset for name in SETTABLE
        )
        self._settable = _layout([registers[name] for name in SETTABLE], 0).unpack_from

    def settable(self, slot: bytes) -> dict[str, int]:
        """The registers of a response that SET_REGISTERS applies."""
        return dict(zip(SETTABLE, self._settable(slot), strict=True))

    def write(
        self,
        reason: str,
        header: tuple[int, int, int],
        values: dict[str, Any],
        registers: dict[str, int],
    ) -> bytes:
        """A request.

        Args:
            reason: its name.
            header: flags, vcpu_id and altp2m_idx.
            values: the members of its payload in the newest interface; older ones take their part.
            registers: of the vCPU.
        """
        flags, vcpu_id, altp2m_idx = header
        interface = self._interface
        slot = bytearray(interface.slot_size)
        code = self._codes[reason]
        self._header.pack_into(slot, 0, interface.version, flags, code, vcpu_id, altp2m_idx)
        if reason not in self._payloads:
            self._payloads[reason] = _packer(list(interface.payloads.get(reason, {}).values()))
            self._registers[reason] = self._register_packer(reason)
        payload = self._payloads[reason](values)
        start = interface.payload[0]
        slot[start : start + len(payload)] = payload
        assert interface.registers_block is not None
        block, size = interface.registers_block
        slot[block : block + size] = self._registers[reason](registers).ljust(size, b"\0")
        return bytes(slot)

    def _register_packer(self, reason: str) -> Callable[[dict[str, int]], bytes]:
        unfilled = self._interface.unfilled(reason)
        return _packer(list(self._interface.registers.values()), unfilled)


def _packer(fields: list[Field], unfilled: frozenset[str] = frozenset()) -> Callable[[dict[str, Any]], bytes]:
    """One struct for fields that follow one another, gaps as padding."""
    if not fields:
        return lambda values: b""
    fields = sorted(fields, key=lambda field: field.offset)
    pack = _layout(fields, fields[0].offset).pack
    names = [_ZERO if field.name in unfilled else field.name for field in fields]
    if len(names) == 1:
        only = names[0]
        return lambda values: pack(values[only])
    take = itemgetter(*names)
    return lambda values: pack(*take(values))


def _layout(fields: list[Field], start: int) -> struct.Struct:
    """Fields in the order of their offsets, from ``start`` on."""
    layout, at = "<", start
    for field in fields:
        code = "I" if field.code == "segment" else field.code
        layout += f"{field.offset - at}x{code}"
        at = field.offset + field.size
    return struct.Struct(layout)
