"""``xenintro policy test``: the tests that rules carry."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from xenintro.capture.reader import Capture
from xenintro.errors import PolicyError
from xenintro.policy import load
from xenintro.policy.rules import RulePolicy
from xenintro.policy.testing import run_tests
from xenintro_cli.event_source import asked_up_to
from xenintro_cli.output import write_lines
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from xenintro.events import Event
    from xenintro.policy.testing import Outcome


@click.command(name="test")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def command(files: tuple[str, ...]) -> int:
    """Run every [[rule.test]] of files of rules. The exit code is 8 if one fails.

    \b
    Example:
      xenintro policy test rules.toml lib:hide-hypervisor
    """  # noqa: D301 - click takes the backspace for a mark
    style = Style.of(sys.stdout)
    counts = {True: 0, False: 0}
    for file in files:
        policy = load(file)
        if not isinstance(policy, RulePolicy):
            raise PolicyError(
                f"{file} has no tests of its own", why="only files of rules have", hint="use pytest"
            )
        for outcome in run_tests(policy, recorded):
            counts[not outcome.differences] += 1
            write_lines(_lines(outcome, style))
    passed, failed = counts[True], counts[False]
    write_lines([f"{passed} passed, {failed} failed"])
    if not passed and not failed:
        click.echo("there are no tests: a test begins with [[rule.test]]", err=True)
    return PolicyError.exit_code if failed else 0


def recorded(path: Path, seq: int) -> Iterator[tuple[Event, int]]:
    """The events of a capture up to the one that is meant, and when they were taken."""
    with Capture(path) as capture:
        for answered in asked_up_to(capture, str(path), seq):
            yield answered.event, answered.taken_ns


def _lines(outcome: Outcome, style: Style) -> list[str]:
    where = f"{outcome.rule}  {outcome.path.name}:{outcome.line}"
    if not outcome.differences:
        return [f"{style.level('ok  ', 'ok')}  {where}  {outcome.expected.answer}"]
    lines = [f"{style.alarm('FAIL')}  {where}"]
    for name in outcome.differences:
        expected, got = (getattr(came, name) for came in (outcome.expected, outcome.got))
        lines += [f"      {name:<10}expected  {_shown(expected)}", f"{'':<16}got       {_shown(got)}"]
    return lines


def _shown(value: str | Mapping[str, int] | None) -> str:
    if value is None:
        return "-"
    return (
        value
        if isinstance(value, str)
        else "  ".join(f"{name} {number:#x}" for name, number in value.items())
    )
