"""Where an export goes: nothing is overwritten unasked, and a file has its name only when it is whole."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from xenintro.errors import UsageError, XenintroError
from xenintro.export import Options, find_format, load_writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo


def export(
    name: str,
    info: CaptureInfo,
    events: Iterable[Answered],
    output: Path | BinaryIO,
    options: Options = Options(),  # noqa: B008 - a named tuple cannot change
) -> None:
    """Write events in a format.

    Args:
        name: of the format.
        info: what the capture says of itself.
        events: in order of the requests, times in nanoseconds since the epoch.
        output: a path, or a file open for writing if the format takes a stream.
        options: of the format; ``force`` lets files be replaced.

    Raises:
        UsageError: there is no such format, the output exists, or is not what the format takes.
        NotSupportedError: a package is not installed.
        XenintroError: the output cannot be written.
    """
    writer = load_writer(name)
    takes = find_format(name).takes
    if not isinstance(output, Path):
        if takes != "stream":
            raise UsageError(
                f"{name} cannot be written to a stream", why=f"it is a {takes}", hint="name it with -o PATH"
            )
        writer(info, events, output, options)
        return
    try:
        if takes == "directory":
            _make_directory(output)
            writer(info, events, output, options)
        else:
            with _renamed_when_whole(output, options, is_stream=takes == "stream") as path:
                if takes == "stream":
                    with path.open("wb") as stream:
                        writer(info, events, stream, options)
                else:
                    writer(info, events, path, options)
    except OSError as error:
        raise _cannot_write(output, error) from error


def exists(path: Path) -> UsageError:
    """What is said where something would be overwritten."""
    return UsageError(
        f"{path} exists",
        why="nothing is overwritten unasked",
        hint="--force replaces it; -o PATH writes elsewhere",
    )


def _make_directory(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is no directory", hint="-o PATH writes elsewhere")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def _renamed_when_whole(path: Path, options: Options, *, is_stream: bool) -> Iterator[Path]:
    """A private file beside the path, renamed to it at the end, gone if that is not reached.

    A pipe or a device is written as it is.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        if stat.S_ISDIR(mode) or not is_stream:
            raise UsageError(f"{path} is no file", hint="-o PATH writes elsewhere")
        yield path
        return
    if mode is not None and not options.force:
        raise exists(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> XenintroError:
    return XenintroError(f"cannot write {path}", why=error.strerror or str(error))
