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

from xenintro.errors import DomainBusyError, XenintroError
from xenintro.xen.entries import PAUSES, Entries, Header, boot_id, lines
from xenintro.xen.occupied import busy, not_given_back
from xenintro.xen.statedir import (
    LockedError,
    holder,
    lock,
    make_directory,
    state_file,
    sync_directory,
    unlock,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.undo import Change

_log = logging.getLogger(__name__)


class Journal:
    """The open and locked journal of one domain.

    What undoes never depends on it: only who attaches refuses to go on where it cannot be written.

    Attributes:
        path: the file.
        entries: what it holds.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        data = os.pread(fd, 1 << 24, 0) if fd >= 0 else b""
        self.entries = Entries.parse(data)
        self._end = data.rfind(b"\n") + 1  # a torn line is overwritten
        self._attaching = False  # nothing was done to the domain that needs undoing
        self._complained = False

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
        journal = cls._locked(info)
        if journal.entries.is_about(info):
            journal.close()
            raise not_given_back(info, journal.path)
        try:
            journal.start(info, interface, changes)
        except BaseException:
            journal.close()
            raise
        journal._attaching = True
        return journal

    @classmethod
    def begin_anyhow(cls, info: DomainInfo, interface: str, changes: Sequence[Change]) -> Self:
        """`begin` for a rescue; where no file can be written, only this process knows what is in it.

        Raises:
            DomainBusyError: see `begin`.
        """
        try:
            journal = cls.begin(info, interface, changes)
        except DomainBusyError:
            raise
        except XenintroError as error:
            journal = cls(state_file(info.uuid), -1)
            journal.entries = Entries(_header(info, interface), changes)
            journal._complain(error)
        journal._attaching = False
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
        try:
            journal = cls(path, lock(path, create=False))
        except LockedError as error:
            if not force:
                raise busy(info, holder(path)) from error
            journal = cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            return None
        except OSError as error:
            unwritable = cls._read_only(path, error)
            if unwritable is None:
                return None
            journal = unwritable
        if journal.entries.is_about(info):
            journal._take_over_pauses()
            return journal
        _log.info("%s is about a past life of the domain, removed", journal.path)
        journal.remove()
        return None

    @classmethod
    def _read_only(cls, path: Path, error: OSError) -> Self | None:
        """What can be known of a journal that cannot be locked: its file system has become read-only."""
        try:
            journal = cls(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as worse:
            _log.warning("cannot read what was changed in the domain: %s", worse)
            return None
        journal._complain(error)
        return journal

    @classmethod
    def _locked(cls, info: DomainInfo) -> Self:
        path = state_file(info.uuid)
        try:
            with writing(path):
                return cls(path, lock(path, create=True))
        except LockedError as error:
            raise busy(info, holder(path)) from error

    def start(self, info: DomainInfo, interface: str, changes: Sequence[Change]) -> None:
        """Write the journal, and make sure that it will be found.

        Raises:
            XenintroError, NoXenError: it cannot be written.
        """
        header = _header(info, interface)
        with writing(self.path):
            os.ftruncate(self._fd, 0)
            self._end = 0
            self._append(PAUSES.format(0, 0).encode() + lines(header, *changes))
            os.fsync(self._fd)
            sync_directory(self.path.parent)
        self.entries = Entries(header, changes)

    def record(self, changes: Sequence[Change]) -> None:
        """Put more changes on disk, all at once; make them only afterwards.

        Raises:
            XenintroError: they cannot be written.
        """
        with writing(self.path):
            self._append(lines(*changes))
            os.fsync(self._fd)
        self.entries.changes += changes

    def record_anyhow(self, changes: Sequence[Change]) -> None:
        """`record` for a rescue, which does what it can."""
        try:
            self.record(changes)
        except XenintroError as error:
            self.entries.changes += changes
            self._complain(error)

    def note_port(self, port: int) -> None:
        """Keep Xen's end of the event channel: who attached has its ring. No sync: it changes nothing."""
        self.entries.port = port
        self._attaching = False
        try:
            self._append(lines({"port": port}))
        except OSError as error:  # a rescue looks closer at who lives then
            self._complain(error)

    @contextmanager
    def counting(self, pauses: int) -> Iterator[None]:
        """Around a call that pauses the domain (1), unpauses it (-1), or pauses it while it works (0).

        Raises:
            XenintroError: it cannot be noted, and nothing was done to the domain yet; the call was not made.
        """
        before = self.entries.pauses
        self._count(min(before, before + pauses), maybe=1, needed=self._attaching)
        after = before
        try:
            yield
            after += pauses
        finally:
            self._count(after)

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
        entries.enabling = bool(entries.maybe and entries.pauses)
        one_more = entries.maybe and entries.header is not None and not entries.header.paused
        self._count(entries.pauses + bool(one_more))

    def _count(self, pauses: int, *, maybe: int = 0, needed: bool = False) -> None:
        # The page cache outlives the process; after a crash of the host there is no domain to unpause.
        try:
            os.pwrite(self._fd, PAUSES.format(pauses, maybe).encode(), 0)
        except OSError as error:
            if needed:
                with writing(self.path):
                    raise
            self._complain(error)
        self.entries.pauses, self.entries.maybe = pauses, maybe

    def _complain(self, error: Exception) -> None:
        """Once: what follows fails too. A rescue after this process's death would know less."""
        if not self._complained:
            self._complained = True
            _log.warning("no journal is kept of what is done to the domain: %s: %s", self.path, error)


def _header(info: DomainInfo, interface: str) -> Header:
    domain = (info.uuid, info.domid, info.name, info.nr_vcpus)
    return Header(*domain, boot_id(), os.getpid(), interface, info.paused)
