"""Several policies as one: the first rule that has a say wins."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from xenintro.errors import PolicyError, RuleError, described
from xenintro.events import EVENT_TYPES, Event
from xenintro.response import WRITES
from xenintro.verdict import Rule, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xenintro.guest import Guest
    from xenintro.response import Response

_log = logging.getLogger(__name__)

#: What a policy may raise without ending more than its own say; sys.exit() in a policy ends no service.
FAILURES = (Exception, SystemExit, GeneratorExit)


class Judge(Rule, Protocol):
    """A rule that decides.

    Attributes:
        reasons: of the events that it is asked about; None: all.
        on_error: its answer if it fails; None: the next one is asked.
        denies: whether it may deny a register write, or skip one: the monitor must arm that (`may_deny`).
    """

    @property
    def reasons(self) -> frozenset[str] | None: ...  # noqa: D102
    @property
    def on_error(self) -> Response | None: ...  # noqa: D102
    @property
    def denies(self) -> bool: ...  # noqa: D102

    def judge(self, event: Event, guest: Guest) -> Verdict | None:
        """What it says of an event; None has no say, and if nobody has one the event happens."""


class Policy(Protocol):
    """What one file says.

    Attributes:
        name: of the file, or of what was taken from it.
        rules: in the order they are asked.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def rules(self) -> Sequence[Judge]: ...  # noqa: D102

    def set_up(self, guest: Guest) -> None:
        """Before the first event; no vCPU waits."""

    def tear_down(self) -> None:
        """After the last event, whatever ended it."""


def chain(policies: Sequence[Policy], guest: Guest) -> Callable[[Event], Verdict | None] | None:
    """What a session asks: the first rule that has a say wins. None where there is no policy.

    One that raises has no say; its error comes with the verdict of another, or is raised.
    """
    if not policies:
        return None
    rules = [rule for policy in policies for rule in policy.rules]
    buckets = {
        reason: tuple((rule.judge, rule) for rule in rules if rule.reasons is None or reason in rule.reasons)
        for reason in EVENT_TYPES
    }

    def decide(event: Event) -> Verdict | None:
        errors: tuple[RuleError, ...] = ()
        for judge, rule in buckets[event.reason]:
            try:
                verdict = judge(event, guest)
            except FAILURES as error:
                errors += (RuleError(rule.name, error),)
                if rule.on_error is None:
                    continue
                verdict = Verdict(rule.on_error, rule)
            if verdict is not None:
                return verdict._replace(errors=errors) if errors else verdict
        if errors:
            raise errors[0]
        return None

    return decide


def may_deny(policies: Sequence[Policy]) -> bool:
    """Whether one of their rules may deny a register write; where that is sent, it must be armed first."""
    return any(
        rule.denies and (rule.reasons is None or rule.reasons & WRITES)
        for policy in policies
        for rule in policy.rules
    )


def set_up(policies: Sequence[Policy], guest: Guest) -> None:
    """Let every policy prepare.

    Raises:
        PolicyError: one failed; those before it were torn down.
    """
    for number, policy in enumerate(policies):
        try:
            policy.set_up(guest)
        except BaseException as error:
            tear_down(policies[:number])
            if isinstance(error, FAILURES):
                raise PolicyError(f"setup of {policy.name} failed", why=described(error)) from error
            raise


def tear_down(policies: Sequence[Policy]) -> int:
    """Let every policy clean up, the last one first; how many failed, each of which is said."""
    failed = 0
    for policy in reversed(policies):
        try:
            policy.tear_down()
        except FAILURES as error:
            failed += 1
            _log.warning("teardown of %s failed: %s", policy.name, described(error))
    return failed


@contextmanager
def running(policies: Sequence[Policy], guest: Guest) -> Iterator[Callable[[Event], Verdict | None] | None]:
    """`chain` of policies that are set up, and torn down at the end.

    Raises:
        PolicyError: see `set_up`.
    """
    set_up(policies, guest)
    try:
        yield chain(policies, guest)
    finally:
        tear_down(policies)
