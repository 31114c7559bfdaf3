"""Why a file of rules answers an event as it does: every part of every condition, and what would be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xenintro.codec import encode
from xenintro.errors import PolicyError, described
from xenintro.legality import check
from xenintro.policy.lawful import EVERYTHING
from xenintro.response import allow

if TYPE_CHECKING:
    from xenintro.events import Event
    from xenintro.guest import Guest
    from xenintro.policy.language.expression import Explanation
    from xenintro.policy.rules import RulePolicy, TomlRule


class Asked(NamedTuple):
    """A rule for this kind of event.

    Attributes:
        rule: it.
        why: its condition for this event; None if it has none.
        matches: whether it holds.
        decides: it is the first that does, and so has the say.
    """

    rule: TomlRule
    why: Explanation | None
    matches: bool
    decides: bool


class Explained(NamedTuple):
    """What comes of an event.

    Attributes:
        asked: the rules for it, in order.
        answer: what it is called.
        message: what the rule says.
        sent: the response slot.
        error: why the answer cannot be sent; then the event is allowed.
    """

    asked: list[Asked]
    answer: str
    message: str | None
    sent: bytes
    error: str | None


def explain(policy: RulePolicy, event: Event, guest: Guest) -> Explained:
    """Ask every rule about an event, also those behind the one that decides."""
    asked: list[Asked] = []
    for rule in policy.rules:
        if rule.on == event.reason:
            why = None if rule.when is None else rule.when.explain(event, guest)
            matches = why is None or bool(why.value)
            asked.append(Asked(rule, why, matches, matches and not any(one.decides for one in asked)))
    response, error, message = allow(event), None, None
    deciding = next((one.rule for one in asked if one.decides), None)
    if deciding is not None:
        message = deciding.message(event)
        try:
            response = deciding.answer.respond(event, guest)
            check(event, response, EVERYTHING)
        except PolicyError as refused:
            response, error = allow(event), described(refused)
    return Explained(asked, response.name, message, encode(event, response), error)
