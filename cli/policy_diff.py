"""``xenintro policy diff``: what another policy would have answered to recorded traffic."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from xenintro.capture.reader import Capture
from xenintro.capture.replay import RecordedMemory, guest_of
from xenintro.errors import IllegalResponseError, PolicyError
from xenintro.legality import check
from xenintro.policy import load, running
from xenintro.policy.lawful import EVERYTHING
from xenintro.sinks.text import Lines
from xenintro_cli import options
from xenintro_cli.output import terminal_width, write_lines
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.events import Event
    from xenintro.verdict import Verdict

    Said = tuple[str, str]

#: Events shown of each kind of difference.
_EXAMPLES = 3


@click.command(name="diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("-r", "--read", "path", required=True, metavar="FILE", help='The capture; "-" reads stdin.')
@options.color
def command(before: str, after: str, path: str, color: str) -> None:
    """Show where policy B answers otherwise than policy A would, on the traffic of a capture.

    \b
    Example:
      xenintro policy diff rules.toml new-rules.toml -r win10.pcapng
    """  # noqa: D301 - click takes the backspace for a mark
    style = Style.of(sys.stdout, color)
    lines = Lines(style, terminal_width())
    counts: Counter[tuple[Said, Said]] = Counter()
    examples: dict[tuple[Said, Said], list[str]] = {}
    total = 0
    with Capture(path) as capture:
        guest = guest_of(capture.info, RecordedMemory(capture))
        with running([load(before)], guest) as first, running([load(after)], guest) as second:
            assert first is not None
            assert second is not None
            for total, answered in enumerate(capture, 1):
                event = answered.event
                guest.begin(answered.taken_ns)
                change = _said(first, event), _said(second, event)
                if change[0] != change[1]:
                    counts[change] += 1
                    shown = examples.setdefault(change, [])
                    if len(shown) < _EXAMPLES:
                        line = lines.line(event, time_ns=answered.taken_ns, answer=None, pause_ns=None)
                        shown.append(f"  {total - 1:>7}  {line}")
        damage = capture.damage
    text = [f"{sum(counts.values())} of {total} requests are answered otherwise"]
    for change, count in counts.most_common():
        was, becomes = change
        text += ["", f"{count} x  {_called(was)} {style.arrow} {_called(becomes)}", *examples[change]]
    write_lines(text)
    if damage is not None:
        raise damage


def _said(decide: Callable[[Event], Verdict | None], event: Event) -> Said:
    """What a policy answers, and by which rule."""
    try:
        verdict = decide(event)
        if verdict is None:
            return "allow", ""
        if verdict.response is not None:
            check(event, verdict.response, EVERYTHING)
    except IllegalResponseError as error:
        return f"error: {error.why}", verdict.rule.name if verdict else ""
    except PolicyError as error:
        return f"error: {error.what}", ""
    return "allow" if verdict.response is None else verdict.response.name, verdict.rule.name


def _called(said: Said) -> str:
    answer, rule = said
    return f"{answer} ({rule})" if rule else answer
