"""What a policy says of one event, and which of its rules says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from xenintro.errors import RuleError
    from xenintro.events import Event
    from xenintro.response import Response


class Rule(Protocol):
    """A rule of a policy: what lines, captures and counts call an answer by.

    Attributes:
        name: unique within what is loaded.
        level: how much it matters (``critical``, ``warning``, ...), None where nobody said.
        tags: what it is filed under.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def level(self) -> str | None: ...  # noqa: D102
    @property
    def tags(self) -> tuple[str, ...]: ...  # noqa: D102

    def message(self, event: Event) -> str | None:
        """What it says of this event, None if nothing. Asked for after the answer: nobody waits."""


class Verdict(NamedTuple):
    """An answer to an event; ``response`` None lets it happen, noted under the rule all the same.

    ``errors`` are of rules that were asked before and could not decide.
    """

    response: Response | None
    rule: Rule
    errors: tuple[RuleError, ...] = ()
