"""Events as lines: one write per batch, after the answers."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TextIO

import click

from xenintro.errors import XenintroError
from xenintro.sinks.answered import AnsweredLines
from xenintro.sinks.jsonl import timestamp
from xenintro.sinks.text import Lines
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.answered import Answered
    from xenintro.policy.language.columns import Columns
    from xenintro.policy.language.expression import Expression


class ReaderGoneError(Exception):
    """Whoever read stdout has seen enough: a normal end. An OSError here would be click's, and exit 1."""


class JsonOutput:
    """JSON Lines of answered requests.

    Args:
        origin: where the events come from.
        write: where lines go.
    """

    def __init__(self, origin: Origin, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._lines = AnsweredLines(*origin)
        self._seq = 0

    def __call__(self, batch: list[Answered]) -> None:
        """Write one line per request."""
        line, first = self._lines.line, self._seq
        self._seq += len(batch)
        self._write(b"".join(line(answered, seq) for seq, answered in enumerate(batch, first)))


class HumanOutput:
    """Aligned lines of answered requests; the names of the columns come with the first.

    Args:
        color: ``auto``, ``always`` or ``never``.
        origin: where the events come from.
        write: where lines go.
        noted: rules have a say, and leave notes.
    """

    def __init__(
        self, color: str, origin: Origin, write: Callable[[bytes], None], *, noted: bool = False
    ) -> None:
        self._write = write
        self._offset_ns = origin.offset_ns
        self._lines = Lines(Style.of(sys.stdout, color), terminal_width(), noted=noted)
        self._encoding = sys.stdout.encoding
        self._started = False

    def __call__(self, batch: list[Answered]) -> None:
        """Write one line per request."""
        lines = [
            self._lines.line(
                answered.event,
                time_ns=answered.taken_ns + self._offset_ns,
                answer=_answer(answered),
                pause_ns=answered.pause_ns,
                note=_note(answered),
            )
            for answered in batch
        ]
        if lines and not self._started:
            self._started = True
            lines.insert(0, self._lines.header())
        self._write(encoded(lines, self._encoding))


class FieldsOutput:
    """Chosen fields with tabs between them; their names come first.

    Args:
        columns: the fields.
        origin: where the events come from.
        write: where lines go.
    """

    def __init__(self, columns: Columns, origin: Origin, write: Callable[[bytes], None]) -> None:
        self._columns = columns
        self._origin = origin
        self._write = write
        self._encoding = sys.stdout.encoding
        self._seq = -1

    def __call__(self, batch: list[Answered]) -> None:
        """Write one line per request."""
        row, origin = self._columns.row, self._origin
        lines = [
            row(answered, origin, ts=timestamp(answered.taken_ns + origin.offset_ns), seq=seq)
            for seq, answered in enumerate(batch, max(0, self._seq))
        ]
        if self._seq < 0:
            lines.insert(0, self._columns.header)
        self._seq = max(0, self._seq) + len(batch)
        self._write(encoded(lines, self._encoding))


class Origin(NamedTuple):
    """The domain that events come from, None where unknown.

    ``offset_ns`` makes nanoseconds since the epoch of their times; 0 for a capture.
    """

    domid: int | None
    name: str | None
    offset_ns: int = 0


class Form(NamedTuple):
    """What of the events is printed, and how.

    Attributes:
        format: ``human``, ``jsonl`` or ``fields``.
        columns: the fields, for ``fields``.
        filter: which events; None for all.
        color: see `Style.of`.
    """

    format: str = "human"
    columns: Columns | None = None
    filter: Expression[Answered] | None = None
    color: str = "auto"

    def output(self, origin: Origin, write: Callable[[bytes], None], *, noted: bool) -> Output:
        """Lines on stdout; ``noted`` as `HumanOutput` takes it."""
        if self.format == "jsonl":
            return JsonOutput(origin, write)
        if self.columns is not None:
            return FieldsOutput(self.columns, origin, write)
        return HumanOutput(self.color, origin, write, noted=noted)

    def shows(self, origin: Origin) -> Callable[[Answered], bool] | None:
        """Tells the requests that are printed; None: all are."""
        if self.filter is None:
            return None
        matches = self.filter.matches
        return lambda answered: matches(answered, origin)


Output = JsonOutput | HumanOutput | FieldsOutput


def _answer(answered: Answered) -> str:
    if answered.late:
        return f"{answered.answer} late"
    return answered.answer if answered.would is None else f"would {answered.would}"


def _note(answered: Answered) -> str:
    """The rule that had a say, and what it says."""
    rule = answered.rule
    return "" if rule is None else "  ".join(filter(None, (rule.name, rule.message(answered.event))))


def terminal_width() -> int | None:
    """Columns of the terminal on stdout; None where stdout is none, so that nothing is dropped."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def write_lines(lines: list[str]) -> None:
    """Write lines of text at once, in the stream's encoding."""
    write(encoded(lines, sys.stdout.encoding))


def encoded(lines: list[str], encoding: str | None) -> bytes:
    """Lines of text as bytes."""
    text = "".join(f"{line}\n" for line in lines)
    return text.encode(encoding or "utf-8", errors="replace")


def writer() -> Callable[[bytes], None]:
    """`write` to what is stdout now, wherever others are led meanwhile."""
    return partial(write, stream=sys.stdout)


def write(data: bytes, stream: TextIO | None = None) -> None:
    """Write to stdout and flush.

    Raises:
        ReaderGoneError: nobody reads any more.
        XenintroError: the output cannot be written, for instance because the disk is full.
    """
    stream = stream or sys.stdout
    try:
        stream.buffer.write(data)
        stream.buffer.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError from error
    except OSError as error:
        # What is buffered would fail again when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise cannot_write(error) from error


def cannot_write(error: OSError) -> XenintroError:
    """What is said of a full disk and the like."""
    return XenintroError(
        "cannot write the output",
        why=f"{error.strerror} on stdout",
        hint="what was watched has been answered and given back",
    )


def say(text: str, *, color: bool) -> None:
    """Write a line to stderr.

    Raises:
        ReaderGoneError: nobody reads any more.
    """
    try:
        click.echo(text, err=True, color=color)
    except BrokenPipeError as error:
        raise ReaderGoneError from error
