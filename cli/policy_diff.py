"""``xenintro policy diff``: what another policy would have answered to recorded traffic."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import redirect_stdout

import click

from xenintro.capture.reader import Capture
from xenintro.capture.verify import members_that_differ
from xenintro.policy import load
from xenintro.sinks.text import Lines
from xenintro_cli import options
from xenintro_cli.comparing import Said, compare
from xenintro_cli.output import terminal_width, write_lines
from xenintro_cli.style import Style

#: Events shown of each kind of difference.
_EXAMPLES = 3


@click.command(name="diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("-r", "--read", "path", required=True, metavar="FILE", help='The capture; "-" reads stdin.')
@options.color
def command(before: str, after: str, path: str, color: str) -> None:
    """Show where policy B would have answered otherwise than policy A, on the traffic of a capture.

    Both are enforced, and asked where the recording session would have asked them. What is sent is compared,
    byte for byte.

    \b
    Example:
      xenintro policy diff rules.toml new-rules.toml -r win10.pcapng
    """  # noqa: D301 - click takes the backspace for a mark
    style = Style.of(sys.stdout, color)
    lines = Lines(style, terminal_width())
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[str]] = {}
    total = 0
    with Capture(path) as capture, redirect_stdout(sys.stderr):  # what a policy prints is no difference
        for total, (was, becomes) in enumerate(compare(capture, (load(before), load(after))), 1):
            if was.answered.response == becomes.answered.response and was.error == becomes.error:
                continue
            change = _called(was), _called(becomes)
            counts[change] += 1
            shown = examples.setdefault(change, [])
            if counts[change] <= _EXAMPLES:
                shown += _example(total - 1, was, becomes, lines, style)
        damage = capture.damage
    text = [f"{sum(counts.values())} of {total} requests are answered otherwise"]
    for (one, other), count in counts.most_common():
        text += ["", f"{count} x  {one} {style.arrow} {other}", *examples[one, other]]
    write_lines(text)
    if damage is not None:
        raise damage


def _called(said: Said) -> str:
    if said.error:
        return f"error: {said.error}"
    answered = said.answered
    return f"{answered.answer} ({answered.rule.name})" if answered.rule else answered.answer


def _example(number: int, was: Said, becomes: Said, lines: Lines, style: Style) -> list[str]:
    """The request; where the answers have the same name, what is not the same in them too."""
    event = was.answered.event
    line = lines.line(event, time_ns=was.answered.taken_ns, answer=None, pause_ns=None)
    text = [f"  {number:>7}  {line}"]
    if was.answered.answer == becomes.answered.answer and not (was.error or becomes.error):
        for name, old, new in members_that_differ(
            was.answered.response, becomes.answered.response, event.interface
        ):
            text.append(f"  {'':>7}    {name} {old} {style.arrow} {new}")
    return text
