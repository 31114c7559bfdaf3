"""This process: can it attach, and what happens to a guest if it is killed?"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from xenintro.errors import NotSupportedError
from xenintro.xen.probe.finding import Finding, failed

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
        import xenintro.xen.ring  # noqa: F401 - importing it is the test
    except NotSupportedError as error:
        return failed("extension", "process", "native extension", error)
    detail = f"present; Python {platform.python_version()}, cffi {metadata.version('cffi')}"
    return Finding("extension", "process", "ok", "native extension", detail)


def _state_directory() -> Finding:
    directory = Path(os.environ.get("XENINTRO_STATE_DIR", "/var/lib/xenintro"))
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if os.access(existing, os.W_OK | os.X_OK) and existing.is_dir():
        return Finding("state", "process", "ok", "state directory", f"{directory} is writable")
    return Finding(
        *("state", "process", "error", "state directory", f"cannot write to {existing}"),
        fix=f"run as root, or name another directory: XENINTRO_STATE_DIR (now {directory})",
    )


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
