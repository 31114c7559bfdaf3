"""How fields are read where it must be fast: straight from the slot, by interface."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any

from xenintro.abi import CTRLREGS, DESCRIPTORS, MSR_NAMES
from xenintro.events import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.abi import Interface
    from xenintro.events import Event


class _Names(dict[int, str]):
    """Names of numbers; those that have none are called by ``template``."""

    def __init__(self, names: Mapping[int, str], template: str) -> None:
        super().__init__(names)
        self._template = template

    def __missing__(self, number: int) -> str:
        return self._template.format(number)


#: What the readable members of the event types are made of, faster than they are: attribute, and a table.
READABLE: Mapping[tuple[str | None, str], tuple[str, Mapping[int, str]]] = {
    ("mem_access", "access"): (
        "event.access_flags & 7",
        {n: "".join(one for bit, one in enumerate("rwx") if n >> bit & 1) for n in range(8)},
    ),
    ("write_ctrlreg", "register"): ("event.index", _Names(dict(enumerate(CTRLREGS)), "ctrlreg{}")),
    ("mov_to_msr", "register"): ("event.msr", _Names(MSR_NAMES, "{:#x}")),
    ("descriptor_access", "register"): ("event.descriptor", _Names(DESCRIPTORS, "descriptor{}")),
}


class ByInterface(dict["Interface", Any]):
    """Something that depends on the interface, made when it is first met."""

    def __init__(self, make: Callable[[Interface], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, interface: Interface) -> Any:
        made = self[interface] = self._make(interface)
        return made


@cache
def registers(key: str) -> ByInterface:
    """Readers of a register: functions of the event."""
    name, _, part = key.partition(".")

    def make(interface: Interface) -> Callable[[Event], int | None]:
        field = interface.registers.get(name)
        if field is None:
            return lambda event: None
        unpack, offset, version = _unpack(field.code), field.offset, interface.version
        shift, mask = _PARTS[part]
        # Bytes win over the table, as in `Registers.get`. Of a version that is not the interface's nothing
        # is known.
        doubtful = frozenset(reason for reason in EVENT_TYPES if name in interface.unfilled(reason))

        def whole(event: Event) -> int | None:
            value: int = unpack(event.raw, offset)[0]
            if event.reason in doubtful and (not value or event.version != version):
                return None
            return value

        def some(event: Event) -> int | None:
            value = whole(event)
            return None if value is None else value >> shift & mask

        return some if part else whole

    return ByInterface(make)


#: What a segment has in one word: shift and mask.
_PARTS = {"": (0, 0), "limit": (0, 0xFFFFF), "ar": (20, 0xFFF)}


@cache
def _unpack(code: str) -> Callable[[bytes, int], tuple[int]]:
    return struct.Struct("<" + code.replace("segment", "I")).unpack_from


@cache
def cpl() -> ByInterface:
    """The privilege level is that of ss (Intel SDM volume 3, 5.5); before vm_event-4 there is cs alone."""

    def make(interface: Interface) -> Callable[[Event], int | None]:
        rights = "ss.ar" if "ss" in interface.registers else "cs_arbytes"
        read = registers(rights)[interface]

        def level(event: Event) -> int | None:
            value = read(event)
            return None if value is None else value >> 5 & 3

        return level

    return ByInterface(make)


@cache
def flag_masks(name: str) -> ByInterface:
    """The mask of a flag of the request; 0 where the interface has no such flag."""

    def make(interface: Interface) -> int:
        return sum(1 << bit for bit, one in interface.flag_names.items() if one == name)

    return ByInterface(make)
