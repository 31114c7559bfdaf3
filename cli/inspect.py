"""``xenintro inspect``: what is in a capture."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from xenintro.capture.contents import Contents, Said
from xenintro.capture.reader import Capture
from xenintro.sinks import jsonl
from xenintro.sinks.slotdump import SlotDump
from xenintro_cli import dissector, options
from xenintro_cli.contents import answer_text, content_lines, content_record, duration, printable
from xenintro_cli.output import terminal_width, write, write_lines
from xenintro_cli.progress import with_progress
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.answered import Answered

#: Lines of --raw in one write.
_AT_ONCE = 512


@click.command(name="inspect")
@click.argument("file", metavar="FILE")
@click.option(
    "--raw", is_flag=True, help="Print every request and response as bytes, with their names beside."
)
@dissector.options
@options.output_format
@options.color
@options.talk
def command(file: str, raw: bool, output_format: str, color: str, quiet: bool) -> None:
    """Say what is in the capture FILE ("-" reads stdin): events, pauses, answers, and what is missing.

    \b
    Examples:
      xenintro inspect win10.pcapng
      xenintro inspect win10.pcapng --raw | less
      tshark -X lua_script:$(xenintro inspect --dissector) -r win10.pcapng -Y vm_event.mov_to_msr
    """  # noqa: D301 - click takes the backspace for a mark
    if raw and output_format == "jsonl":
        raise click.UsageError("--raw is for people; programs read the capture, or export --to jsonl")
    style = Style.of(sys.stdout, color)
    with Capture(file) as capture:
        if raw:
            _print_raw(capture, style)
        else:
            _summarize(capture, file, output_format, style, quiet=quiet)
        if capture.damage is not None:
            raise capture.damage


def _summarize(capture: Capture, file: str, output_format: str, style: Style, *, quiet: bool) -> None:
    contents = Contents()
    for answered in with_progress(capture, "reading", quiet=quiet):
        contents.count(answered, capture.reads)
    if output_format == "jsonl":
        write(jsonl.line(content_record(capture, contents, file)))
    else:
        write_lines(content_lines(capture, contents, file, style))


def _print_raw(capture: Capture, style: Style) -> None:
    lines: list[str] = []
    for line in _raw_lines(capture, style):
        lines.append(line)
        if len(lines) >= _AT_ONCE:
            write_lines(lines)
            lines.clear()
    write_lines(lines)


def _raw_lines(capture: Capture, style: Style) -> Iterator[str]:
    dump = SlotDump(terminal_width())
    for seq, answered in enumerate(capture):
        event = answered.event
        name = style.event(event.reason, event.reason)
        yield f"{seq}  {jsonl.timestamp(answered.taken_ns)}  v{event.vcpu_id}  {name}"
        yield style.dim(f"  request, {len(event.raw)} bytes")
        yield from dump.request(event)
        if answered.response:
            yield style.dim(f"  response, {len(answered.response)} bytes") + f": {_answer(answered, style)}"
            yield from dump.response(event, answered.response)
        else:
            yield style.alarm("  no response")
        yield ""


def _answer(answered: Answered, style: Style) -> str:
    rule = "" if answered.rule is None else f" by {printable(answered.rule.name)}"
    text = answer_text(Said.of(answered)) + rule
    return text + ("" if answered.pause_ns is None else f" after {duration(answered.pause_ns, style)}")
