"""Where the guest was."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xenintro.events import Event

#: The register that holds the address of the instruction.
_COUNTERS = {"x86_64": "rip", "arm64": "pc"}


def code_address(event: Event) -> int | None:
    """The address of the instruction that caused the event; None where the snapshot does not say."""
    interface = event.interface
    if event.version != interface.version:
        return None
    address = event.registers.get(_COUNTERS[interface.arch])
    return address if isinstance(address, int) else None
