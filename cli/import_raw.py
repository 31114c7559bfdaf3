"""``xenintro record --from-raw``: raw slots and ring pages from elsewhere into a capture."""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import version
from pathlib import Path
from time import time_ns
from typing import IO

from xenintro.abi import interface
from xenintro.capture.info import CaptureInfo
from xenintro.capture.raw import Imported, import_raw
from xenintro.capture.writer import CaptureWriter
from xenintro.errors import UsageError
from xenintro_cli.output import say


def import_file(
    path: str, output: Path | None, *, abi: str | None, arch: str, kind: str | None, force: bool, quiet: bool
) -> int:
    """Import one raw file and say what was taken.

    Raises:
        UsageError: no interface or no output is named, or the file cannot be read.
        DamagedInputError: not all of it could be taken.
    """
    if abi is None:
        raise UsageError(
            "the interface of raw slots is not known",
            why="nothing in them tells their layout",
            hint="for instance: --abi vm_event-7; which Xen speaks which: xenintro decode --help",
        )
    if output is None or output.suffix in (".gz", ".zst"):
        raise UsageError(
            "no file to write" if output is None else f"{output} is not compressed while it is imported",
            why="--from-raw writes one capture",
            hint="name it: -w raw.pcapng",
        )
    layout = interface(abi, arch)
    with _opened(path) as file:
        time = _time_ns(file)
        info = CaptureInfo(
            abi=abi,
            arch=arch,
            started_ns=time,
            monotonic_ns=time,
            version=version("xenintro"),
            command=tuple(sys.argv),
        )
        with CaptureWriter(output, info, force=force) as writer:
            try:
                taken = import_raw(file, writer, layout, kind=kind, time_ns=time)
            except UsageError:
                writer.discard()
                raise
    if not quiet:
        for line in _words(taken, output, abi):
            say(line, color=False)
    if taken.damage is not None:
        raise taken.damage
    return 0


def _words(taken: Imported, output: Path, abi: str) -> list[str]:
    what = f"{taken.pages} ring pages" if taken.kind == "pages" else "slots"
    lines = [f"took {what}: {taken.requests} requests without an answer"]
    if taken.unknown:
        lines.append(f"  {taken.unknown} of them are no requests of {abi}: is --abi right?")
    return [*lines, f"wrote {output}"]


def _opened(path: str) -> IO[bytes]:
    try:
        return io.FileIO(0, closefd=False) if path == "-" else Path(path).open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error


def _time_ns(file: IO[bytes]) -> int:
    """When the file was written; a pipe is as old as now."""
    status = os.fstat(file.fileno())
    return status.st_mtime_ns if status.st_size else time_ns()
