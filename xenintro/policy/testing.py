"""The tests that rules carry: each makes an event happen, and says what should come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xenintro.abi import interface
from xenintro.codec import decode
from xenintro.errors import IllegalResponseError, UsageError, XenintroError, described
from xenintro.guest import Guest
from xenintro.legality import check
from xenintro.policy.chain import chain
from xenintro.policy.lawful import EVERYTHING
from xenintro.policy.reader import NOBODY
from xenintro.policy.requests import make_request, parse_number
from xenintro.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from xenintro.events import Event
    from xenintro.policy.rules import RulePolicy, TomlRule
    from xenintro.response import Response

    #: The events of a capture up to one of them, with the times at which they were taken.
    Recorded = Callable[[Path, int], Iterable[tuple[Event, int]]]

#: The interface of tests that do not name one.
DEFAULT_ABI = "vm_event-7"

#: What is compared only where a test asks for it.
_ON_REQUEST = ("message", "registers")

#: When events of tests happen that have no time of their own.
_START_NS = 1_700_000_000_000_000_000


class Came(NamedTuple):
    """What came of an event, or should come of it."""

    answer: str
    rule: str | None = None
    message: str | None = None
    registers: Mapping[str, int] | None = None


class Outcome(NamedTuple):
    """A test that was run.

    Attributes:
        path, line: where it stands.
        rule: whose test it is.
        expected, got: what should come of the event, and what came.
        differences: names of what differs, empty if it passed.
    """

    path: Path
    line: int
    rule: str
    expected: Came
    got: Came
    differences: tuple[str, ...]


def run_tests(policy: RulePolicy, recorded: Recorded) -> Iterator[Outcome]:
    """Run every test of a file. What cannot be run has failed, and says why.

    Args:
        policy: whose tests.
        recorded: reads a capture.
    """
    for rule in policy.all_rules:
        for test in rule.tests:
            expected = Came(test["expect"])
            try:
                expected = _expected(rule, test)
                got = _run(policy, rule, test, recorded)
            except XenintroError as error:
                got = Came(f"error: {described(error)}")
            differences = tuple(
                name
                for name, wanted, came in zip(Came._fields, expected, got, strict=True)
                if wanted != came and not (name in _ON_REQUEST and wanted is None)
            )
            yield Outcome(policy.path, test["line"], rule.name, expected, got, differences)


def _expected(rule: TomlRule, test: dict[str, Any]) -> Came:
    answer = test["expect"]
    registers = {name: parse_number(value) for name, value in test.get("registers", {}).items()}
    named = None if answer == NOBODY else test.get("rule", rule.name)
    return Came(answer, named, test.get("say"), registers or None)


def _run(policy: RulePolicy, rule: TomlRule, test: dict[str, Any], recorded: Recorded) -> Came:
    guest = Guest(1, "-", "test", 1)
    decide = chain([policy], guest)
    assert decide is not None
    policy.set_up(guest)
    came = Came(NOBODY)
    for event, taken_ns in _events(policy.path.parent, rule, test, recorded):
        guest.begin(taken_ns)
        verdict = decide(event)
        if verdict is None:
            came = Came(NOBODY)
            continue
        response = verdict.response
        came = Came(
            "allow" if response is None else response.name,
            verdict.rule.name,
            verdict.rule.message(event),
            _registers(response, test),
        )
        if response is not None:
            try:
                check(event, response, EVERYTHING)
            except IllegalResponseError as error:
                came = came._replace(answer=f"error: {error.what}: {error.why}")
    return came


def _registers(response: Response | None, test: dict[str, Any]) -> Mapping[str, int] | None:
    """The registers that the test asks for, as the answer sets them."""
    changed = (response.registers if response is not None else None) or {}
    return {name: value for name, value in changed.items() if name in test.get("registers", {})} or None


def _events(
    directory: Path, rule: TomlRule, test: dict[str, Any], recorded: Recorded
) -> Iterator[tuple[Event, int]]:
    """The events of a test: what it expects is expected of the last one."""
    if "capture" in test:
        yield from recorded(directory / test["capture"], test["seq"])
        return
    layout = interface(test.get("abi", DEFAULT_ABI))
    if "slot" in test:
        event = decode(_slot(directory / test["slot"], layout.slot_size), layout)
    else:
        event = decode(make_request(layout, rule.on, test["event"]), layout)
    every_ns = int(parse_duration(test.get("every", "0s")) * 1e9)
    for number in range(test.get("times", 1)):
        yield event, _START_NS + number * every_ns


def _slot(path: Path, size: int) -> bytes:
    try:
        return path.read_bytes()[: size + 1]
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
