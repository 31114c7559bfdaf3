"""Where the guest was."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xenintro.abi import Interface
    from xenintro.events import Event

#: The register that holds the address of the instruction.
_COUNTERS = {"x86_64": "rip", "arm64": "pc"}


def counter_name(interface: Interface) -> str:
    """The name of the register that holds the address of the instruction."""
    return _COUNTERS[interface.arch]


def code_address(event: Event) -> int | None:
    """The address of the instruction that caused the event; None where the snapshot does not say."""
    interface = event.interface
    if event.version != interface.version:
        return None
    address = event.registers.get(counter_name(interface))
    return address if isinstance(address, int) else None
