"""Files about domains in one directory, each locked by the process that works on its domain."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xenintro.errors import NoXenError, XenintroError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT = "/var/lib/xenintro"
_SUFFIX = ".journal"
_FLOCK = "hhqqi"  # struct flock where off_t has 64 bits

#: Files that this process has locked, and its pid then: a lock is not inherited by a forked child.
#: Opening and closing such a file again would drop the lock.
_held: dict[Path, int] = {}


class LockedError(Exception):
    """Another process works with the file."""


def state_directory() -> Path:
    """Where journals are: XENINTRO_STATE_DIR, else /var/lib/xenintro."""
    return Path(os.environ.get("XENINTRO_STATE_DIR") or _DEFAULT)


def state_file(uuid: str) -> Path:
    """The journal of a domain, there or not."""
    return state_directory() / f"{uuid}{_SUFFIX}"


def state_files() -> list[Path]:
    """Every journal there is."""
    return sorted(state_directory().glob(f"*{_SUFFIX}"))


def make_directory() -> None:
    """Make the state directory where it is missing.

    Raises:
        XenintroError, NoXenError: it cannot be made.
    """
    directory = state_directory()
    with writing(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong with files into an error that says what to do."""
    try:
        yield
    except OSError as error:
        kind = NoXenError if error.errno in (errno.EACCES, errno.EPERM) else XenintroError
        raise kind(
            "cannot keep a journal of what is changed in the domain",
            why=f"{error.strerror}: {error.filename or path}",
            hint="name a directory to keep it in: XENINTRO_STATE_DIR=DIR xenintro ...",
        ) from error


def sync_directory(directory: Path) -> None:
    """Put names of new or removed files on disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock(path: Path, *, create: bool) -> int:
    """Open a file that only this process may work with, until it closes it or dies.

    A record lock, not flock's: a child that a policy forks does not keep it, and Linux says who has it.

    Raises:
        LockedError: another process has it, or this one.
        OSError: it cannot be opened; FileNotFoundError if there is none to open.
    """
    while True:
        if holder(path) is not None:
            raise LockedError
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(fd, path):  # else its last owner removed it meanwhile
                _held[path] = os.getpid()
                return fd
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise LockedError from error
            raise
        os.close(fd)


def unlock(path: Path, fd: int) -> None:
    """Close a locked file."""
    _held.pop(path, None)
    os.close(fd)


def holder(path: Path) -> int | None:
    """The process that has locked a file, None if none has or there is no such file."""
    if _held.get(path) == os.getpid():
        return os.getpid()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a file system may have become read-only
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else pid


def _is(fd: int, path: Path) -> bool:
    opened = os.fstat(fd)
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
