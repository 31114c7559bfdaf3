"""Conditions of rules against the Python that one would write by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bench.measure import Row, against, per_call_ns
from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.codec import decode
from xenintro.policy.language.expression import compile_expression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LAYOUT = interface("vm_event-7")
_MSR = decode(
    make_slot(
        _LAYOUT,
        5,
        payload={"msr": 0xC0000082, "new_value": 0x81, "old_value": 3},
        registers={"rip": 0xFFFF800000001000},
    ),
    _LAYOUT,
)
_MEM = decode(make_slot(_LAYOUT, 1, payload={"gfn": 0x2005, "flags": 10}), _LAYOUT)
_MSRS = frozenset([0x176, 0xC0000082, 0xC0000083])

_CASES: tuple[tuple[Any, str, Callable[[Any, Any], object]], ...] = (
    (
        _MSR,
        "msr in syscall_msrs and old_value != 0 and new_value != old_value",
        lambda event, guest: (
            event.msr in _MSRS and event.old_value != 0 and event.new_value != event.old_value
        ),
    ),
    (
        _MEM,
        "access.w and gfn in pages('0x2000-0x2fff')",
        lambda event, guest: event.access_flags & 2 and 0x2000 <= event.gfn <= 0x2FFF,
    ),
    (
        _MSR,
        "rip >> 47 != 0 and register == 'lstar'",
        lambda event, guest: event.registers.rip >> 47 != 0 and event.register == "lstar",
    ),
)


def expression_rows() -> Iterator[Row]:
    """One evaluation, true to the end."""
    for event, text, by_hand in _CASES:
        matches = compile_expression(text, event.reason, names={"syscall_msrs": [*_MSRS]}).matches
        yield against(
            text if len(text) < 45 else f"{text[:42]}...",
            lambda matches=matches, event=event: per_call_ns(lambda: matches(event, None)),
            "a Python lambda",
            lambda by_hand=by_hand, event=event: per_call_ns(lambda: by_hand(event, None)),
            unit="ns",
            goal="about 100 ns",
        )
