"""Numbers that a rule computes of an event, for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.policy.language.check import Checker
from xenintro.policy.language.emit import Emitter
from xenintro.policy.language.scope import Scope
from xenintro.policy.language.syntax import Source
from xenintro.policy.language.tree import Constant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.events import Event
    from xenintro.guest import Guest
    from xenintro.policy.language.scope import Named


def compile_value(
    text: str, reason: str, *, names: Mapping[str, Named] | None = None
) -> int | Callable[[Event, Guest], int | None]:
    """A number in the language of `xenintro.policy.language.expression`.

    Args:
        text: it.
        reason: of the events that it is computed of.
        names: constants that it may use.

    Returns:
        It, where it is always the same; else what computes it, None where a field of it is absent.

    Raises:
        ExpressionError: a mistake, and where.
    """
    source = Source(text)
    tree = Checker(source, Scope(reason, answered=False, names={} if names is None else names)).number(
        source.parse()
    )
    if isinstance(tree, Constant):
        return int(tree.value)
    values = Emitter(answered=False, state={}).values([tree])

    def compute(event: Event, guest: Guest) -> int | None:
        value = values(event, guest)[0]
        return value if isinstance(value, int) else None

    return compute
