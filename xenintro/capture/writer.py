"""Writes one capture: a header, then what was answered, in few write(2)s."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import interface
from xenintro.capture import blocks
from xenintro.capture.blocks import INBOUND, OUTBOUND, Packets
from xenintro.capture.records import MEMORY, PAGES, SLOTS, comments
from xenintro.errors import CaptureError, UsageError
from xenintro.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.guest import GuestRead

#: Nanoseconds between looks at whether the file still has a name.
_LOOK_NS = 1_000_000_000

_NOTHING: Mapping[int, Sequence[GuestRead]] = {}


class CaptureWriter:
    """A capture that grows. Give its `write` to a session: it is to be called when the answers are out.

    Whatever happens to this process, what `write` or `flush` has written stays, and is readable. A call that
    fails takes back what it has written in part.

    Args:
        path: of the file, which only this user can read.
        info: what it says of itself; times that are given to `write` count as its ``monotonic_ns`` does.
        force: replace a file that is there.
        first_id: packet id of the first request: captures that follow each other count on.

    Attributes:
        path: of the file.
        requests: written or held.
        held: bytes that `flush` is to write.
        lost: to be told by whoever knows of requests that could not be written.

    Raises:
        UsageError: there is such a file, or something that is no file.
        CaptureError: it cannot be written.
    """

    def __init__(self, path: Path, info: CaptureInfo, *, force: bool = False, first_id: int = 0) -> None:
        self.path = path
        self.info = info
        self.requests = self.lost = 0
        self._offset_ns = info.started_ns - info.monotonic_ns
        self._last_ns = info.monotonic_ns
        self._next_look_ns = 0
        self._first_id = first_id
        self._slots = Packets(0, interface(info.abi, info.arch).slot_size)
        header = _header(info)
        self._fd = _create(path, header, force=force)
        self._written = len(header)
        self._held: list[tuple[bytes, int]] = []  # with the requests in each
        self.held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes written or held."""
        return self._written + self.held

    @property
    def next_id(self) -> int:
        """The packet id of the next request."""
        return self._first_id + self.requests

    def write(self, batch: Sequence[Answered], reads: Mapping[int, Sequence[GuestRead]] = _NOTHING) -> None:
        """Write requests in their order, and among them responses in that of their times.

        Args:
            batch: what was answered; an empty response means that there was no answer.
            reads: guest memory that the policy read, by position in the batch.

        Raises:
            CaptureError: no space, or the file was removed.
        """
        self.hold(batch, reads)
        self.flush()

    def hold(self, batch: Sequence[Answered], reads: Mapping[int, Sequence[GuestRead]] = _NOTHING) -> None:
        """What `write` does, but for the writing: `flush` does that for several calls at once."""
        if not batch:
            return
        offset_ns, packet_id, packet = self._offset_ns, self.next_id, self._slots.block
        timed: list[tuple[int, bytes]] = []
        in_order_ns = 0  # since when a late request waited is not known exactly: maybe before those before it
        for at, answered in enumerate(batch):
            event, taken_ns = answered.event, answered.taken_ns
            vcpu_id, time_ns = event.vcpu_id, taken_ns + offset_ns
            in_order_ns = max(in_order_ns, taken_ns)
            timed.append((in_order_ns, packet(event.raw, time_ns, INBOUND, packet_id, vcpu_id)))
            timed += [(in_order_ns, _memory(read, time_ns, packet_id, vcpu_id)) for read in reads.get(at, ())]
            if answered.response:
                time_ns = answered.answered_ns + offset_ns
                said = comments(answered)
                response = packet(answered.response, time_ns, OUTBOUND, packet_id, vcpu_id, *said)
                timed.append((max(in_order_ns, answered.answered_ns), response))
            packet_id += 1
        timed.sort(key=itemgetter(0))
        data = b"".join([block for _, block in timed])
        self._held.append((data, len(batch)))
        self.held += len(data)
        self.requests += len(batch)
        self._last_ns = max(self._last_ns, timed[-1][0])

    def flush(self) -> None:
        """Write what is held.

        Raises:
            CaptureError: no space, though for some of it there may have been; or the file was removed.
        """
        if not self.held:
            return
        held, self._held, self.held = self._held, [], 0
        try:
            self._append(b"".join([data for data, _ in held]))
        except OSError as error:
            self.requests -= sum(count for _, count in held)
            with suppress(OSError):  # as many as there is room for
                for data, count in held:
                    self._append(data)
                    self.requests += count
            self._close()
            raise self._failed(error) from error
        if self._last_ns >= self._next_look_ns:
            self._next_look_ns = self._last_ns + _LOOK_NS
            self._look()

    def page(self, raw: bytes, time_ns: int) -> None:
        """Write a whole ring page.

        Raises:
            CaptureError: no space.
        """
        self.flush()
        self._put(Packets(1, PAGE_SIZE).block(raw, time_ns + self._offset_ns, INBOUND, self.next_id, 0))
        self._last_ns = max(self._last_ns, time_ns)

    def close(self, *, sync: bool = True) -> None:
        """Write the totals and close; with ``sync`` the file is on the disk then. Twice does no harm.

        Raises:
            CaptureError: no space, or the file was removed.
        """
        if self._fd < 0:
            return
        try:
            self.flush()
            self._put(self._totals())
            self._look()
            if sync:
                self._synced()
        finally:
            self._close()

    def discard(self) -> None:
        """Close and remove a file that is worth nothing."""
        self._close()
        self.path.unlink(missing_ok=True)

    def _totals(self) -> bytes:
        def stamp(time_ns: int) -> bytes:
            return blocks.timestamp(time_ns + self._offset_ns)

        counted: blocks.Options = [
            (blocks.ISB_STARTTIME, stamp(self.info.monotonic_ns)),
            (blocks.ISB_ENDTIME, stamp(self._last_ns)),
            (blocks.ISB_IFRECV, self.requests.to_bytes(8, "little")),
            (blocks.ISB_IFDROP, self.lost.to_bytes(8, "little")),
        ]
        return blocks.interface_statistics(0, self._last_ns + self._offset_ns, counted)

    def _put(self, data: bytes) -> None:
        try:
            self._append(data)
        except OSError as error:
            self._close()
            raise self._failed(error) from error

    def _append(self, data: bytes) -> None:
        """Write all of it, or nothing."""
        if self._fd < 0:
            raise CaptureError(f"{self.path} is closed", why="an earlier write failed")
        try:
            _write(self._fd, data)
        except OSError:
            os.ftruncate(self._fd, self._written)
            raise
        self._written += len(data)

    def _look(self) -> None:
        if os.fstat(self._fd).st_nlink == 0:
            self._close()
            raise CaptureError(
                f"{self.path} was removed while it was written",
                why="somebody deleted it: its events are lost",
            )

    def _synced(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error) from error

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _failed(self, error: OSError) -> CaptureError:
        return CaptureError(
            f"cannot write {self.path}",
            why=error.strerror or str(error),
            hint=f"what was recorded before can be read: xenintro inspect {self.path}",
        )


def _create(path: Path, header: bytes, *, force: bool) -> int:
    try:
        if force and stat.S_ISREG(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CaptureError(f"cannot replace {path}", why=error.strerror or str(error)) from error
    try:
        return _with_header(path, header)
    except FileExistsError as error:
        hint = "name another file, or: --force"
        if not stat.S_ISREG(path.lstat().st_mode):
            hint = "name another: a capture is written into a file of its own"
        raise UsageError(f"{path} exists", why="nothing is overwritten unasked", hint=hint) from error
    except OSError as error:
        raise CaptureError(
            f"cannot write {path}", why=error.strerror or str(error), hint="name another file"
        ) from error


def _with_header(path: Path, header: bytes) -> int:
    """A file that appears with its header, so that a killed process leaves none without."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    nameless = True
    try:
        fd = os.open(path.parent, flags | os.O_TMPFILE, 0o600)
    except OSError:  # not on this filesystem
        nameless = False
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _write(fd, header)
        if nameless:
            # A descriptor of a directory, though the path is absolute: without, os.link follows no links.
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)
    except BaseException:
        os.close(fd)
        if not nameless:
            path.unlink()
        raise
    return fd


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _header(info: CaptureInfo) -> bytes:
    """Section header and interfaces: the same facts for people, in the options of pcapng, and as JSON."""
    domain = info.domain or (f"domain {info.domid}" if info.domid is not None else "unknown")
    layout = " ".join(filter(None, (info.abi, info.arch, info.release)))
    hardware = f"Xen {info.xen or info.release or 'unknown'}, {info.abi}, {info.arch}"
    known = [
        (blocks.SHB_HARDWARE, hardware.encode()),
        (blocks.SHB_OS, blocks.utf8(info.os, blocks.LONGEST_OPTION)),
        (blocks.SHB_USERAPPL, f"xenintro {info.version}".strip().encode()),
        (blocks.OPT_COMMENT, _json(info)),
    ]
    described = b"".join(
        blocks.interface_description(
            link_type,
            [
                (blocks.IF_NAME, blocks.utf8(f"xen:{domain}:{name}", 256)),
                (blocks.IF_DESCRIPTION, what.encode()),
                (blocks.IF_TSRESOL, b"\x09"),
            ],
        )
        for link_type, name, what in (
            (SLOTS, "monitor", layout),
            (PAGES, "ring", f"ring pages of {layout}"),
            (MEMORY, "memory", "guest memory read by a policy"),
        )
    )
    return blocks.section_header([(code, value) for code, value in known if value]) + described


def _json(info: CaptureInfo) -> bytes:
    """As it fits into an option; a command line of megabytes does not."""
    for left_out in ({}, {"command": ()}, {"command": (), "events": "", "policies": {}}):
        data = msgspec.json.encode(msgspec.structs.replace(info, **left_out))
        if len(data) <= blocks.LONGEST_OPTION:
            return data
    raise UsageError("the names of host and domain are too long for a capture")


@lru_cache(64)
def _memory_packets(size: int) -> Packets:
    return Packets(2, size)


def _memory(read: GuestRead, time_ns: int, packet_id: int, vcpu_id: int) -> bytes:
    data = read.gpa.to_bytes(8, "little") + read.data
    return _memory_packets(len(data)).block(data, time_ns, INBOUND, packet_id, vcpu_id)
