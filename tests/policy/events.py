"""Events and guests for tests of the language."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.answered import Answered
from xenintro.codec import decode
from xenintro.events import Event
from xenintro.policy.language.expression import compile_expression, compile_filter

if TYPE_CHECKING:
    from collections.abc import Mapping

GUEST = SimpleNamespace(domid=7, name="tiny", now_ns=0)


def make_event(reason: str, abi: str = "vm_event-7", arch: str = "x86_64", **slot: Any) -> Event:
    """An event; ``payload``, ``registers`` and so on as `make_slot` takes them."""
    layout = interface(abi, arch)
    code = next(number for number, name in layout.reasons.items() if name == reason)
    return decode(make_slot(layout, code, **slot), layout)


def answered(event: Event, **more: Any) -> Answered:
    """The event, allowed at once."""
    return Answered(event, "allow", b"sent", 0, 1000, **more)


def holds(text: str, event: Event, names: Mapping[str, Any] | None = None) -> bool:
    """What a rule's condition and, where it can be one, a filter says of an event: the same."""
    in_rule = compile_expression(text, event.reason, names=names)(event, GUEST)
    assert compile_filter(text, names=names)(answered(event), GUEST) is in_rule
    return in_rule
