"""This process: can it attach, and what happens to a guest if it is killed?"""

from __future__ import annotations

import errno
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from xenintro.errors import NotSupportedError, XenintroError
from xenintro.xen.probe.finding import Finding, failed
from xenintro.xen.statedir import state_directory, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

#: oom_score_adj from which on the kernel kills almost everything else first.
_PROTECTED = -500
_OOM = Path("/proc/self/oom_score_adj")


def findings() -> Iterator[Finding]:
    """Whether this process has what a monitor needs."""
    yield _extension()
    yield _state_directory()
    yield from _oom()


def _extension() -> Finding:
    try:
        import xenintro.xen.guard  # noqa: F401 - importing it is the test
    except NotSupportedError as error:
        return failed("extension", "process", "native extension", error)
    versions = f"Python {platform.python_version()}, cffi {metadata.version('cffi')}"
    detail = f"ring and deadline thread are there; {versions}"
    return Finding("extension", "process", "ok", "native extension", detail)


def _state_directory() -> Finding:
    directory = state_directory()
    try:
        with writing(directory):
            _check_writable(directory)
    except XenintroError as error:
        return failed("state", "process", "state directory", error)
    return Finding("state", "process", "ok", "state directory", f"{directory} is writable")


def _check_writable(directory: Path) -> None:
    """Raise what making the directory, or a file in it, would."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))


def _oom() -> Iterator[Finding]:
    try:
        adjustment = int(_OOM.read_text())
    except (OSError, ValueError):
        return
    if adjustment <= _PROTECTED:
        yield Finding("oom", "process", "ok", "OOM score", f"{adjustment}: killed late")
        return
    detail = (
        f"{adjustment}: when memory runs out, this process may be killed, and the guest waits for its rescue"
    )
    fix = "run it under systemd (OOMScoreAdjust=-900), or: choom -n -900 -- xenintro ..."
    yield Finding("oom", "process", "warn", "OOM score", detail, fix)
