"""One released ring interface: where each field of a slot lies, and what its numbers mean.

The tables under ``data/`` were printed by programs compiled from the public headers of every release
(xen/include/public/mem_event.h and vm_event.h); a layout is the newest of its interface version, which is
a superset of the older ones. Field entries are ``[offset, struct code]`` or, for bit fields,
``[offset, struct code, shift, bits]``; offsets count from the start of the slot.
"""

from __future__ import annotations

import re
import struct
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from xenintro.abi.constants import Flag
from xenintro.abi.fills import unfilled
from xenintro.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ARCHITECTURES = ("x86_64", "arm64")

#: Every interface that ever existed, oldest first.
INTERFACE_IDS = (
    *("mem_event-4.0.0", "mem_event-4.0.1", "mem_event-4.1.0", "mem_event-4.1.1", "mem_event-4.2"),
    *("mem_event-4.3", "mem_event-4.4", "mem_event-pre-rfc3", "mem_event-rfc3", "mem_event-4.5"),
    *(f"vm_event-{version}" for version in range(1, 8)),
)

_SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8, "i": 4, "segment": 4}

#: The ring header: req_prod, req_event, rsp_prod, rsp_event, then 48 private bytes (io/ring.h).
RING_INDICES = struct.Struct("<IIII")
SLOT0 = 64


class Field(NamedTuple):
    """Where a value lies in the slot. ``code`` is a struct code, or ``segment`` for {limit:20, ar:12}."""

    name: str
    offset: int
    code: str
    shift: int = 0
    bits: int = 0

    @property
    def size(self) -> int:
        """Bytes read from the slot."""
        return _SIZES[self.code]


class _Entry(msgspec.Struct, array_like=True):
    """A field in a file under ``data/``: as `Field` without its name."""

    offset: int
    code: str
    shift: int = 0
    bits: int = 0


class _Data(msgspec.Struct, forbid_unknown_fields=True):
    """A file under ``data/``."""

    id: str
    family: str
    version: int | None
    releases: list[str]
    flags: dict[int, str]
    reasons: dict[int, str]
    slot_size: int
    nr_slots: int
    header: dict[str, _Entry]
    payloads: dict[str, dict[str, _Entry]]
    registers: dict[str, dict[str, _Entry]]
    payload: tuple[int, int]
    register_index: dict[int, int] = {}
    registers_block: tuple[int, int] | None = None
    emul_read: tuple[int, int] | None = None
    emul_insn: tuple[int, int] | None = None
    fast_singlestep_p2midx: _Entry | None = None


class Interface:
    """The layout of one interface on one architecture, optionally of one Xen release.

    Attributes:
        id: ``vm_event-7``.
        family: ``vm_event`` or ``mem_event``.
        version: the number in every slot; None in mem_event, which has none.
        arch: ``x86_64`` or ``arm64``.
        release: ``4.17`` where known.
        slot_size: bytes of a request, of a response and of a ring slot.
        nr_slots: slots of a one-page ring, a power of two.
        header: fields every request has.
        payloads: fields by reason name.
        registers: fields of the register snapshot; empty where the interface carries none.
        payload: (offset, bytes) of what Xen may read back from a response.
        registers_block: (offset, bytes) of the snapshot, or None.
    """

    def __init__(self, data: _Data, arch: str, release: str | None) -> None:
        self.id = data.id
        self.family = data.family
        self.version = data.version
        self.releases = tuple(data.releases)
        self.arch = arch
        self.release = release
        self.slot_size = data.slot_size
        self.nr_slots = data.nr_slots
        self.reasons: Mapping[int, str] = data.reasons
        self.register_index: Mapping[int, int] = data.register_index
        self.header = _fields(data.header)
        self.payloads = {name: _fields(fields) for name, fields in data.payloads.items()}
        self.registers = _fields(data.registers.get(arch, {}))
        self.payload = data.payload
        self.registers_block = data.registers_block if self.registers else None
        self.emul_read = data.emul_read
        self.emul_insn = data.emul_insn
        view = data.fast_singlestep_p2midx
        self.fast_singlestep_p2midx = Field("p2midx", view.offset, view.code) if view else None
        self.flag_names: Mapping[int, str] = data.flags
        self._unfilled: dict[str, frozenset[str]] = {}
        by_name = {name: bit for bit, name in data.flags.items()}
        self._wire = {
            flag: 1 << by_name[name.lower()]
            for flag, name in ((flag, flag.name or "") for flag in Flag)
            if name.lower() in by_name
        }

    def __repr__(self) -> str:
        return f"Interface({self.id!r}, {self.arch!r}, release={self.release!r})"

    def unfilled(self, reason: str) -> frozenset[str]:
        """Names of the registers that the hypervisor does not fill for this reason."""
        known = self._unfilled.get(reason)
        if known is None:
            known = unfilled(self.id, self.release, reason, frozenset(self.registers))
            self._unfilled[reason] = known
        return known

    def names_of(self, wire_flags: int) -> list[str]:
        """Names of the flags set in a request's or response's flags field; unknown bits as ``bit20``."""
        return [
            self.flag_names.get(bit, f"bit{bit}")
            for bit in range(wire_flags.bit_length())
            if wire_flags >> bit & 1
        ]

    def has_flag(self, flag: Flag) -> bool:
        """Whether this interface defines the flag."""
        return flag in self._wire

    def flags_to_wire(self, flags: int) -> int:
        """The number to put into a response's flags field, from bits of `Flag`.

        Raises:
            KeyError: the interface does not define one of the flags.
        """
        if self.family == "vm_event":
            return flags
        wire = 0
        for flag in Flag(flags):
            wire |= self._wire[flag]
        return wire


def _fields(table: Mapping[str, _Entry]) -> dict[str, Field]:
    return {name: Field(name, *msgspec.structs.astuple(entry)) for name, entry in table.items()}


@cache
def _load(interface_id: str) -> _Data:
    path = resources.files("xenintro.abi") / "data" / f"{interface_id}.json"
    return msgspec.json.decode(path.read_bytes(), type=_Data)


def interface(interface_id: str, arch: str = "x86_64", release: str | None = None) -> Interface:
    """The layout of an interface, by id (``vm_event-7``).

    A release may be given in the id too: ``vm_event-1-4.6`` is vm_event-1 as Xen 4.6 fills it.

    Raises:
        UsageError: no such interface or architecture.
    """
    if arch not in ARCHITECTURES:
        raise UsageError(
            f"unknown architecture {arch!r}",
            why=f"known are {', '.join(ARCHITECTURES)}",
        )
    if match := re.fullmatch(r"vm_event-v?(\d)(?:-(\d\.\d+))?", interface_id):
        interface_id, release = f"vm_event-{match[1]}", match[2] or release
    if interface_id not in INTERFACE_IDS:
        raise UsageError(
            f"unknown interface {interface_id!r}",
            why=f"known are {', '.join(INTERFACE_IDS)}",
            hint="see: xenintro decode --help",
        )
    data = _load(interface_id)
    if release is not None and data.family == "vm_event" and release not in data.releases:
        raise UsageError(
            f"Xen {release} does not speak {interface_id}",
            why=f"{interface_id} is Xen {', '.join(data.releases)}",
        )
    return _interface(interface_id, arch, release)


@cache
def _interface(interface_id: str, arch: str, release: str | None) -> Interface:
    """One object per layout, however it was asked for."""
    return Interface(_load(interface_id), arch, release)


def interface_of_version(version: int, arch: str = "x86_64", release: str | None = None) -> Interface | None:
    """The layout of a vm_event interface version as Xen reports it, or None for a newer one."""
    interface_id = f"vm_event-{version}"
    if interface_id not in INTERFACE_IDS:
        return None
    if release is not None and release not in _load(interface_id).releases:
        # A vendor tree, or a release newer than this table: the layout is the version's.
        release = None
    return interface(interface_id, arch, release)
