"""``@on``: functions that decide about some kinds of events."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, TypeVar

from xenintro.errors import PolicyError
from xenintro.events import EVENT_TYPES, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    F = TypeVar("F", bound=Callable[..., object])

_MARK = "_xenintro_on"


def on(*kinds: type[Event] | str) -> Callable[[F], F]:
    """Mark a function ``decide(event, guest)`` as a rule for some events.

    Args:
        kinds: types of `xenintro.events`, or reasons: ``@on(WriteCtrlreg)``, ``@on("cpuid", "mov_to_msr")``.

    Raises:
        PolicyError: no such reason.
    """
    reasons = frozenset(kind if isinstance(kind, str) else kind.reason for kind in kinds)
    for reason in reasons - EVENT_TYPES.keys():
        close = difflib.get_close_matches(reason, EVENT_TYPES, n=1, cutoff=0.5)
        raise PolicyError(
            f"no events are called {reason!r}",
            why=f"known are {', '.join(EVENT_TYPES)}",
            hint=f"did you mean {close[0]}?" if close else "",
        )

    def mark(function: F) -> F:
        setattr(function, _MARK, reasons)
        return function

    return mark


def reasons_of(found: object) -> frozenset[str] | None:
    """What a function was marked for; None if it was not."""
    reasons = getattr(found, _MARK, None)
    return reasons if isinstance(reasons, frozenset) else None
