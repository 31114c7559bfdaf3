"""Captures without what a guest had in its general registers."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from xenintro.codec import decode
from xenintro.events import UnknownEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xenintro.abi import Interface
    from xenintro.answered import Answered

#: The sixteen of x86; the snapshot of Arm has none.
GENERAL_REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *(f"r{number}" for number in range(8, 16)),
)


def redacted(events: Iterable[Answered]) -> Iterator[Answered]:
    """The same events with general registers zeroed, and what responses carry beside their payload.

    Of an event that cannot be decoded only the header is left.
    """
    for answered in events:
        event = answered.event
        start, end = (
            _unknown_to_zero(event.interface)
            if isinstance(event, UnknownEvent)
            else _to_zero(event.interface)
        )
        raw = _zeroed(event.raw, start, end)
        block = event.interface.registers_block
        response = answered.response
        if block is not None and response:
            response = _zeroed(response, block[0], block[0] + block[1])
        yield answered._replace(event=decode(raw, event.interface), response=response)


def _zeroed(raw: bytes, start: int, end: int) -> bytes:
    return raw[:start] + bytes(end - start) + raw[end:]


@cache
def _to_zero(interface: Interface) -> tuple[int, int]:
    """From the first general register to the end of the last: they lie side by side in every interface."""
    fields = [interface.registers[name] for name in GENERAL_REGISTERS if name in interface.registers]
    return min((field.offset for field in fields), default=0), max(
        (field.offset + field.size for field in fields), default=0
    )


def _unknown_to_zero(interface: Interface) -> tuple[int, int]:
    return max(field.offset + field.size for field in interface.header.values()), interface.slot_size
