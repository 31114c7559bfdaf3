"""Captures as something else: one module per format, each with one function.

A format ``name`` is a row of `FORMATS` and a module ``xenintro.export.name`` with::

    def export(info: CaptureInfo, events: Iterable[Answered], output: BinaryIO, options: Options) -> None: ...

``events`` can be gone through once, comes in order of the requests with times in nanoseconds since the epoch,
and may be larger than memory: a writer keeps what it needs and no more. A request without a recorded answer
has ``answer`` ``unanswered`` and an empty ``response``. ``output`` is what the row says the format takes:

* ``stream``: a file open for writing, possibly stdout: written front to back.
* ``file``: the path of an empty file of this user alone; it gets its real name when the writer returns.
* ``directory``: the path of a directory that exists; what is in it stays.

The caller (`xenintro.export.output`) opens, renames and refuses to overwrite; whoever makes ``events`` shows
progress. Packages beyond the core are imported at the top of the format's module, and named by ``extra``.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from xenintro.errors import NotSupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.reader import Capture

    Writer = Callable[[CaptureInfo, Iterable[Answered], Any, "Options"], None]


class Options(NamedTuple):
    """What can be chosen about an export.

    Attributes:
        force: files that exist may be replaced.
        weight: what stacks are weighed by: how often they occurred, or how long vCPUs waited in them.
        capture: where the events come from, if that is a file: it tells at the end what could not be read.
    """

    force: bool = False
    weight: Literal["events", "pause"] = "events"
    capture: Capture | None = None


class Format(NamedTuple):
    """A row of `FORMATS`.

    Attributes:
        summary: one line for people.
        suffix: of the file or directory.
        takes: what the writer's ``output`` is.
        stdout: goes there if no output is named; else to a file named after the capture.
        extra: of this package that installs what the format needs.
    """

    summary: str
    suffix: str
    takes: Literal["stream", "file", "directory"] = "stream"
    stdout: bool = False
    extra: str = ""


FORMATS: Mapping[str, Format] = {
    "jsonl": Format("one JSON object per event, as watch prints it", ".jsonl", stdout=True),
    "sqlite": Format("a database with a table for each kind of event", ".sqlite", takes="file"),
    "parquet": Format(
        "a dataset directory for DuckDB, Polars, Spark, Dask", "", takes="directory", extra="parquet"
    ),
    "folded": Format("stacks of reason, page and rip for flamegraph.pl", ".folded", stdout=True),
    "speedscope": Format("the same for speedscope.app", ".speedscope.json"),
    "perfetto": Format("timeline of every vCPU, for https://ui.perfetto.dev", ".pftrace"),
    "report": Format("what was watched, what came of it, what it cost: one HTML file", ".report.html"),
    "heatmap": Format("pages over time, one HTML file with zoom", ".heatmap.html"),
}


def find_format(name: str) -> Format:
    """The row of a format.

    Raises:
        UsageError: there is no such format.
    """
    if name not in FORMATS:
        close = difflib.get_close_matches(name.lower(), FORMATS, n=1, cutoff=0.5)
        raise UsageError(
            f"unknown format {name!r}",
            why=f"known are {', '.join(FORMATS)}",
            hint=f"did you mean {close[0]}?" if close else "see: xenintro export --help",
        )
    return FORMATS[name]


def load_writer(name: str) -> Writer:
    """The function that writes a format.

    Raises:
        UsageError: there is no such format.
        NotSupportedError: a package that it needs is not installed.
    """
    extra = find_format(name).extra
    try:
        writer: Writer = importlib.import_module(f"xenintro.export.{name}").export
    except ModuleNotFoundError as error:
        if not extra:
            raise
        raise NotSupportedError(
            f"cannot export to {name}",
            why=f"{error.name} is not installed",
            hint=f"pip install 'xenintro[{extra}]'",
        ) from error
    return writer
