"""Where the lab keeps what it downloads and builds: outside the work tree, made once, never half."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


class LabUnavailable(RuntimeError):
    """This machine cannot host the lab; the text says what is missing."""


def root() -> Path:
    """The lab's cache directory (`XENINTRO_CACHE` moves it)."""
    base = os.environ.get("XENINTRO_CACHE") or Path.home() / ".cache" / "xenintro"
    path = Path(base) / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the lock of this name; the kernel drops it if the holder dies."""
    with (root() / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fingerprint(*parts: object) -> str:
    """A short key of everything that a build depends on (files count by their content)."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def built(name: str, key: str, recipe: Callable[[Path], None]) -> Path:
    """The directory `name` as made by `recipe` for this key.

    The recipe works in a directory of another name that is renamed when it returns, so an
    interrupted build leaves nothing that looks finished. Builds for older keys are removed.
    """
    done = root() / f"{name}-{key}"
    with lock(name):
        if done.is_dir():
            return done
        for stale in [*root().glob(f"{name}-????????????"), *root().glob(f".{name}.*.part")]:
            shutil.rmtree(stale)
        work = Path(tempfile.mkdtemp(dir=root(), prefix=f".{name}.", suffix=".part"))
        recipe(work)
        work.chmod(0o755)
        work.rename(done)
    return done


def run(command: Sequence[str | Path], log: Path, **options: object) -> None:
    """Run a build command with its talk in `log`; the tail of the log is the error's text."""
    with log.open("ab") as out:
        done = subprocess.run(command, stdout=out, stderr=out, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise LabUnavailable(f"{command[0]} failed ({done.returncode}), see {log}:\n{tail}")
