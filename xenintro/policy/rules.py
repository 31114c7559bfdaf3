"""A rule of a file, compiled: what it waits for, what it answers, what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenintro.guest import Guest
from xenintro.response import WRITES, Response
from xenintro.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xenintro.events import Event
    from xenintro.policy.answers import Answer
    from xenintro.policy.language.expression import Expression
    from xenintro.policy.language.template import Template

#: How much a rule matters, from the least on.
LEVELS = ("info", "notice", "warning", "critical")


class TomlRule:
    """One ``[[rule]]``.

    Attributes:
        name: unique within its file.
        desc: what it is for.
        on: the reason of the events that it is asked about.
        when: its condition; None: every one of them.
        answer: what it answers.
        say: its message; None: it has none.
        level: one of `LEVELS`.
        tags: what it is filed under.
        enabled: it is asked.
        line: of its name in the file.
        tests: its ``[[rule.test]]`` as they stand in the file.
        judge: see `xenintro.policy.chain.Judge.judge`.
    """

    def __init__(
        self,
        *,
        name: str,
        desc: str,
        on: str,
        when: Expression[Event] | None,
        answer: Answer,
        say: Template | None,
        level: str | None,
        tags: tuple[str, ...],
        enabled: bool,
        on_error: Response | None,
        line: int,
        tests: Sequence[dict[str, Any]],
    ) -> None:
        self.name = name
        self.desc = desc
        self.on = on
        self.when = when
        self.answer = answer
        self.say = say
        self.level = level
        self.tags = tags
        self.enabled = enabled
        self.on_error = on_error
        self.line = line
        self.tests = tests
        self.reasons = frozenset({on})
        self._guest = Guest(0, "", None, 0)
        self.judge: Callable[[Event, Guest], Verdict | None] = self._judge()

    @property
    def denies(self) -> bool:
        """Whether it may leave a write of a control register or MSR undone."""
        undone = not {"deny", "skip"}.isdisjoint(self.answer.name.split("+"))
        return self.on in WRITES and (undone or self.on_error is not None)

    def message(self, event: Event) -> str | None:
        """What it says of an event."""
        return None if self.say is None else self.say(event, self._guest)

    def set_up(self, guest: Guest) -> None:
        """Forget what was seen: the next event is of this guest."""
        self._guest = guest
        if self.when is not None:
            self.when.reset()

    def _judge(self) -> Callable[[Event, Guest], Verdict | None]:
        """One function of what costs least: most rules answer always the same."""
        answer = self.answer
        always = None
        if answer.name == "allow":
            always = Verdict(None, self)
        elif answer.constant is not None:
            always = Verdict(answer.constant, self)
        matches: Any = None if self.when is None else self.when.matches

        if always is None:

            def respond(event: Event, guest: Guest) -> Verdict | None:
                if matches is None or matches(event, guest):
                    return Verdict(answer.respond(event, guest), self)
                return None

            return respond
        if matches is None:
            return lambda event, guest: always
        return lambda event, guest: always if matches(event, guest) else None


class RulePolicy:
    """The rules of one file; an `xenintro.policy.chain.Policy`.

    Attributes:
        name: of the file, without its ending.
        path: of the file.
        all_rules: of the file, disabled ones too.
        rules: those that are asked.
    """

    def __init__(self, path: Path, rules: Sequence[TomlRule]) -> None:
        self.name = path.stem
        self.path = path
        self.all_rules = tuple(rules)
        self.rules = tuple(rule for rule in rules if rule.enabled)

    def set_up(self, guest: Guest) -> None:
        """Forget what was seen of another guest."""
        for rule in self.rules:
            rule.set_up(guest)

    def tear_down(self) -> None:
        """Nothing is left to do."""
