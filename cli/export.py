"""``xenintro export``: a capture as a table, a timeline, a flame graph."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from xenintro.capture.reader import Capture
from xenintro.errors import XenintroError
from xenintro.export import FORMATS, Options, find_format
from xenintro.export.output import export
from xenintro.export.redact import redacted
from xenintro.traps import asked_for, parse_traps
from xenintro_cli import options
from xenintro_cli.output import ReaderGoneError, say
from xenintro_cli.progress import with_progress
from xenintro_cli.recorded import origin_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenintro.answered import Answered
    from xenintro.policy.language.expression import Expression

#: Endings of a capture's name that are not part of what its exports are called.
_CAPTURE_SUFFIXES = (".gz", ".zst", ".pcapng")


@click.command(
    name="export",
    epilog="\b\nFormats:\n" + "\n".join(f"  {name:<12}{row.summary}" for name, row in FORMATS.items()),
)
@click.argument("file", metavar="FILE")
@click.option("--to", "name", required=True, metavar="FORMAT", help="What to make of it, see below.")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help='Where to; "-" is stdout. Else a name made from that of the capture.',
)
@click.option("--force", is_flag=True, help="Replace what exists.")
@click.option("-e", "--events", multiple=True, metavar="LIST", help="Only these events, as in watch.")
@click.option(
    "-f",
    "--filter",
    "condition",
    type=options.Filter(),
    metavar="EXPR",
    help="Only events for which this holds, as in watch.",
)
@click.option(
    "--weight",
    type=click.Choice(["events", "pause"]),
    default="events",
    show_default=True,
    help="What stacks (folded, speedscope) count: events, or nanoseconds that vCPUs waited.",
)
@click.option("--redact", is_flag=True, help="Zero the general registers: they hold data of the guest.")
@options.talk
def command(
    file: str,
    name: str,
    output: str | None,
    force: bool,
    events: tuple[str, ...],
    condition: Expression[Answered] | None,
    weight: Literal["events", "pause"],
    redact: bool,
    quiet: bool,
) -> None:
    """Write what is in the capture FILE ("-" reads stdin) in another format.

    \b
    Examples:
      xenintro export win10.pcapng --to jsonl | jq .reason
      xenintro export win10.pcapng --to sqlite -e msr:lstar,cr4 -f 'pause_ns > 100000'
      xenintro export win10.pcapng --to parquet -o events
    """  # noqa: D301 - click takes the backspace for a mark
    wanted = asked_for(parse_traps(",".join(events))) if events else None
    path = _path(file, name, output)
    with Capture(file) as capture:
        answered: Iterable[Answered] = with_progress(
            capture, name, quiet=quiet or _is_stdout_a_terminal(path)
        )
        if wanted is not None:
            answered = (one for one in answered if wanted(one.event))
        if condition is not None:
            matches, origin = condition.matches, origin_of(capture.info)
            answered = (one for one in answered if matches(one, origin))
        if redact:
            answered = redacted(answered)
        try:
            export(name, capture.info, answered, path or sys.stdout.buffer, Options(force, weight, capture))
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise ReaderGoneError from error
        except KeyboardInterrupt as error:
            raise XenintroError("stopped before the end", why="what was not whole is gone") from error
        if path is not None and not quiet:
            say(f"wrote {path}", color=False)
        if capture.damage is not None:
            raise capture.damage


def _path(file: str, name: str, output: str | None) -> Path | None:
    """Where to write, None for stdout."""
    row = find_format(name)
    if output is None:
        output = "-" if row.stdout else _stem(file) + row.suffix
    return None if output == "-" else Path(output)


def _stem(file: str) -> str:
    if file == "-":
        return "capture"
    stem = Path(file).name
    for suffix in _CAPTURE_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem or "capture"


def _is_stdout_a_terminal(path: Path | None) -> bool:
    return path is None and sys.stdout.isatty()
