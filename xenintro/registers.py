"""The register snapshot that travels in a request: a lazy view over the slot's bytes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from xenintro.errors import RegisterNotProvidedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.abi import Interface

_CODES = {code: struct.Struct(f"<{code}") for code in "BHIQi"}
_U32 = _CODES["I"]


class Segment(NamedTuple):
    """A segment's limit (in 4 KiB units when the G bit is set) and packed access rights (Xen's layout)."""

    limit: int
    ar: int


class Registers:
    """Registers of the vCPU at the time of the request, decoded one by one when read.

    ``registers.rip`` is an int (``registers.cs`` a `Segment` where the interface has segments) and raises
    `RegisterNotProvidedError` where the hypervisor does not fill it; `get` gives None there.
    """

    __slots__ = ("_interface", "_raw", "_reason")

    def __init__(self, raw: bytes, interface: Interface, reason: str) -> None:
        self._raw = raw
        self._interface = interface
        self._reason = reason

    def get(self, name: str) -> int | Segment | None:
        """The register, or None where the interface or this reason does not provide it."""
        field = self._interface.registers.get(name)
        if field is None:
            return None
        value: int | Segment
        if field.code == "segment":
            packed = _U32.unpack_from(self._raw, field.offset)[0]
            value = Segment(packed & 0xFFFFF, packed >> 20)
            filled = packed != 0
        else:
            value = int(_CODES[field.code].unpack_from(self._raw, field.offset)[0])
            filled = value != 0
        # Bytes win over the table: a vendor's Xen may fill what the release did not.
        if not filled and name in self._interface.unfilled(self._reason):
            return None
        return value

    def __getattr__(self, name: str) -> int:
        value = self.get(name)
        if not isinstance(value, int):
            raise _not_provided(name, self._interface, self._reason)
        return value

    def segment(self, name: str) -> Segment:
        """Limit and access rights of ``cs``, ``ss``, ``ds``, ``es``, ``fs`` or ``gs`` (vm_event-4 and newer).

        Raises:
            RegisterNotProvidedError: the interface has no segments.
        """
        value = self.get(name)
        if not isinstance(value, Segment):
            raise _not_provided(name, self._interface, self._reason)
        return value

    @property
    def cs(self) -> Segment:
        """The code segment (vm_event-4 and newer)."""
        return self.segment("cs")

    @property
    def ss(self) -> Segment:
        """The stack segment (vm_event-4 and newer)."""
        return self.segment("ss")

    @property
    def ds(self) -> Segment:
        """The data segment (vm_event-4 and newer)."""
        return self.segment("ds")

    @property
    def es(self) -> Segment:
        """The extra segment (vm_event-4 and newer)."""
        return self.segment("es")

    @property
    def fs(self) -> Segment:
        """The fs segment (vm_event-4 and newer); its base is ``fs_base``."""
        return self.segment("fs")

    @property
    def gs(self) -> Segment:
        """The gs segment (vm_event-4 and newer); its base is ``gs_base``."""
        return self.segment("gs")

    def __iter__(self) -> Iterator[str]:
        return iter(self._interface.registers)

    def __repr__(self) -> str:
        return f"Registers({dict(self.items())!r})"

    def items(self) -> Iterator[tuple[str, int | Segment | None]]:
        """Every register of the block with its value, None where not provided."""
        return ((name, self.get(name)) for name in self._interface.registers)


def _not_provided(name: str, interface: Interface, reason: str) -> Exception:
    if name.startswith("_"):
        return AttributeError(name)
    known = name in interface.registers
    return RegisterNotProvidedError(
        f"register {name} is not provided",
        why=f"{interface.id} ({interface.arch}) "
        + (f"leaves it unfilled for {reason}" if known else "has no such register"),
        hint="read it with registers.get(name), which gives None",
    )
