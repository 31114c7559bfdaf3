"""What a monitor changes in a domain, on disk before it is changed: whoever comes after it can undo it.

One file per domain, named by its UUID, JSON Lines: the pauses that were taken (rewritten in place), who
attached to what, then what may have changed. It is locked while its process lives, and removed once the
domain was given back. A torn last line is of a change that was not made yet.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from xenintro.errors import DomainBusyError, NoSuchDomainError
from xenintro.xen.domains import called, domain_info
from xenintro.xen.entries import PAUSES, Entries, Header, boot_id, lines
from xenintro.xen.statedir import (
    LockedError,
    holder,
    lock,
    make_directory,
    state_file,
    state_files,
    sync_directory,
    unlock,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.undo import Change
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)


class Journal:
    """The open and locked journal of one domain.

    Attributes:
        path: the file.
        entries: what it holds.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        data = os.pread(fd, 1 << 24, 0)
        self.entries = Entries.parse(data)
        self._end = data.rfind(b"\n") + 1  # a torn line is overwritten

    @classmethod
    def begin(cls, info: DomainInfo, interface: str, changes: Sequence[Change] = ()) -> Self:
        """Start the journal of a domain that nothing was done to yet.

        Args:
            info: the domain.
            interface: layout of its ring.
            changes: that will be made.

        Raises:
            DomainBusyError: a process of ours has the domain, or died and left something to undo.
            XenintroError, NoXenError: it cannot be written.
        """
        make_directory()
        journal = cls._locked(info, create=True)
        if journal.entries.is_about(info):
            journal.close()
            raise _left(info, journal.path)
        try:
            journal.start(info, interface, changes)
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def left(cls, info: DomainInfo, *, force: bool = False) -> Self | None:
        """The journal that a dead process left; None if there is none. One of a past life is removed.

        Args:
            info: the domain.
            force: take it from a process that lives, too.

        Raises:
            DomainBusyError: its process lives.
        """
        path = state_file(info.uuid)
        if not path.exists():
            return None
        if force and holder(path) is not None:
            journal = cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        else:
            journal = cls._locked(info, create=False)
        if journal.entries.is_about(info):
            journal._take_over_pauses()
            return journal
        _log.info("%s is about a past life of the domain, removed", journal.path)
        journal.remove()
        return None

    @classmethod
    def _locked(cls, info: DomainInfo, *, create: bool) -> Self:
        path = state_file(info.uuid)
        try:
            with writing(path):
                return cls(path, lock(path, create=create))
        except LockedError as error:
            raise _busy(info, holder(path)) from error

    def start(self, info: DomainInfo, interface: str, changes: Sequence[Change]) -> None:
        """Write the journal, and make sure that it will be found.

        Raises:
            XenintroError, NoXenError: it cannot be written.
        """
        domain = (info.uuid, info.domid, info.name, info.nr_vcpus)
        header = Header(*domain, boot_id(), os.getpid(), interface, info.paused)
        with writing(self.path):
            os.ftruncate(self._fd, 0)
            self._end = 0
            self._append(PAUSES.format(0, 0).encode() + lines(header, *changes))
            os.fsync(self._fd)
            sync_directory(self.path.parent)
        self.entries = Entries(header)
        self.entries.changes += changes

    def record(self, changes: Sequence[Change]) -> None:
        """Put more changes on disk, all at once; make them only afterwards.

        Raises:
            XenintroError: they cannot be written.
        """
        with writing(self.path):
            self._append(lines(*changes))
            os.fsync(self._fd)
        self.entries.changes += changes

    def note_port(self, port: int) -> None:
        """Keep Xen's end of the event channel. It needs no sync: it changes nothing.

        Raises:
            XenintroError: it cannot be written.
        """
        with writing(self.path):
            self._append(lines({"port": port}))
        self.entries.port = port

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Around a call that pauses the domain.

        Raises:
            XenintroError: it cannot be noted; the call was not made.
        """
        with self.pausing_meanwhile():
            yield
            self.entries.pauses += 1

    @contextmanager
    def pausing_meanwhile(self) -> Iterator[None]:
        """Around a call that pauses the domain while it works.

        Raises:
            XenintroError: it cannot be noted; the call was not made.
        """
        with writing(self.path):
            self._count(maybe=1)
        try:
            yield
        finally:
            self._certain()

    @contextmanager
    def unpausing(self) -> Iterator[None]:
        """Around a call that takes one pause back."""
        with writing(self.path):
            self.entries.pauses -= 1
            self._count(maybe=1)
        try:
            yield
        except BaseException:
            self.entries.pauses += 1
            raise
        finally:
            self._certain()

    def remove(self) -> None:
        """The domain is as it was: there is nothing left to undo."""
        try:
            self.path.unlink(missing_ok=True)
            sync_directory(self.path.parent)
        except OSError as error:  # a rescue would do what was done again, which does no harm
            _log.warning("%s: %s", self.path, error)
        self.close()

    def close(self) -> None:
        """Unlock it, and leave it to a rescue; closing twice is fine."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            unlock(self.path, fd)

    def _append(self, data: bytes) -> None:
        written = os.pwrite(self._fd, data, self._end)
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end += written

    def _take_over_pauses(self) -> None:
        """Nobody knows whether the last pause was taken. Xen tells only if somebody paused the domain.

        Where nobody else had, one given back too many does no harm: Xen refuses it.
        """
        entries = self.entries
        if entries.maybe and entries.header is not None and not entries.header.paused:
            entries.pauses += 1
        with writing(self.path):
            self._count(maybe=0)

    def _certain(self) -> None:
        try:
            self._count(maybe=0)
        except OSError as error:  # a rescue would take it for possible, not for certain
            _log.warning("%s: %s", self.path, error)

    def _count(self, *, maybe: int) -> None:
        # The page cache outlives the process; after a crash of the host there is no domain to unpause.
        os.pwrite(self._fd, PAUSES.format(self.entries.pauses, maybe).encode(), 0)
        self.entries.maybe = maybe


def check_free(info: DomainInfo) -> None:
    """What `Journal.begin` would raise; nothing is locked or written. For `xenintro.xen.occupied`.

    Raises:
        DomainBusyError: a process of ours has the domain, or died and left something to undo.
    """
    path = state_file(info.uuid)
    pid = holder(path)
    if pid is not None:
        raise _busy(info, pid)
    try:
        entries = Entries.parse(path.read_bytes())
    except OSError:
        return
    if entries.is_about(info):
        raise _left(info, path)


def forget_the_gone(xc: Xc) -> None:
    """Remove what dead processes left about domains that are no more."""
    for path in state_files():
        try:
            journal = Journal(path, lock(path, create=False))
        except (OSError, LockedError):
            continue  # its process lives, or removes it just now
        if _lives(xc, journal.entries):
            journal.close()
        else:
            journal.remove()


def _lives(xc: Xc, entries: Entries) -> bool:
    """Whether a journal's domain is still there."""
    if entries.header is None:
        return False
    try:
        info = domain_info(xc, entries.header.domid, named=False)
    except NoSuchDomainError:
        return False
    return entries.is_about(info) and info.uuid == entries.header.uuid


def _busy(info: DomainInfo, pid: int | None) -> DomainBusyError:
    return DomainBusyError(
        f"{called(info)} is busy",
        why=f"a xenintro works on it already: process {pid or 'unknown'}",
        hint=f"see what it does: ps {pid}" if pid else f"see: xenintro doctor --domid {info.domid}",
    )


def _left(info: DomainInfo, path: Path) -> DomainBusyError:
    return DomainBusyError(
        f"{called(info)} was not given back",
        why=f"the xenintro that had it is gone, and what it left is in {path}",
        hint=f"bring the domain back first: xenintro rescue --domid {info.domid}",
    )
