"""``xenintro policy explain``: what each rule makes of one event, and why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from xenintro.abi import ARCHITECTURES
from xenintro.errors import PolicyError
from xenintro.policy import load
from xenintro.policy.explaining import explain
from xenintro.policy.rules import RulePolicy
from xenintro.sinks.text import Lines
from xenintro_cli import options
from xenintro_cli.event_source import events_up_to
from xenintro_cli.output import write_lines
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.policy.explaining import Asked, Explained
    from xenintro.policy.language.expression import Explanation

_ROW = 16


@click.command(name="explain")
@click.argument("file", metavar="FILE")
@click.argument("event", metavar="EVENT")
@click.option("--seq", type=options.Number(), default=0, help="Which request of a capture, from 0.")
@click.option("--abi", default="vm_event-7", show_default=True, metavar="ID", help="Interface of a raw slot.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), default="x86_64", show_default=True)
@options.color
def command(file: str, event: str, seq: int, abi: str, arch: str, color: str) -> None:
    """Say of every rule of FILE which part of its condition is true for an EVENT, and what would be sent.

    EVENT is a file: a raw slot, a JSON line as watch prints them ("-" reads one from stdin), or a capture: in
    one the rules have seen what came before.

    \b
    Examples:
      xenintro watch --domid 1 --format jsonl -c 1 | xenintro policy explain rules.toml -
      xenintro policy explain rules.toml win10.pcapng --seq 4711
    """  # noqa: D301 - click takes the backspace for a mark
    policy = load(file)
    if not isinstance(policy, RulePolicy):
        raise PolicyError(f"{file} cannot be explained", why="only files of rules can, this is Python")
    explained = None
    for number, one in enumerate(events_up_to(event, seq, abi, arch)):
        if number == 0:
            policy.set_up(one.guest)
        explained = explain(policy, one.event, one.guest)
    assert explained is not None
    style = Style.of(sys.stdout, color)
    lines = Lines(style, None)
    head = lines.line(one.event, time_ns=None, answer=None, pause_ns=None)
    write_lines([head, "", *_lines(explained, style)])


def _lines(explained: Explained, style: Style) -> Iterator[str]:
    if not explained.asked:
        yield "no rule is asked about this kind of event"
    for asked in explained.asked:
        yield f"{asked.rule.name}  (line {asked.rule.line})  {_verdict(asked, style)}"
        if asked.why is not None:
            yield from _parts(asked.why, style, 1)
    yield ""
    yield f"answer   {explained.answer}"
    if explained.message:
        yield f"message  {explained.message}"
    if explained.error:
        yield f"error    {explained.error}"
    yield f"sent     {len(explained.sent)} bytes, those that are not zero:"
    yield from (f"  {row}" for row in _dump(explained.sent))


def _verdict(asked: Asked, style: Style) -> str:
    if not asked.matches:
        return style.dim("does not match")
    return style.alarm("matches") if asked.decides else "would match, but is not asked"


def _parts(why: Explanation, style: Style, depth: int) -> Iterator[str]:
    shown = why.shown if why.asked else style.dim(why.shown)
    yield f"{'  ' * depth}{shown:<10}  {' '.join(why.text.split())}"
    for part in why.parts:
        yield from _parts(part, style, depth + 1)


def _dump(data: bytes) -> Iterator[str]:
    for offset in range(0, len(data), _ROW):
        row = data[offset : offset + _ROW]
        if any(row):
            yield f"{offset:04x}  {row.hex(' ')}"
