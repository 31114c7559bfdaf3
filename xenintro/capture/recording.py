"""A recording: one capture after the other."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

from msgspec.structs import replace

from xenintro.capture.naming import Rotation
from xenintro.capture.shelf import Shelf
from xenintro.capture.writer import CaptureWriter
from xenintro.errors import CaptureError, UsageError
from xenintro.xen.stepping import StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.pending import Pending
    from xenintro.guest import Guest, GuestRead

#: Bytes that are held before they are written, and nanoseconds: a call to the kernel for every answer would
#: make the next one wait. `Pending` has the requests and responses, should this process be killed.
_TOGETHER, _HELD_NS = 16384, 10_000_000

_NEVER = Rotation()

_NO_READS: Mapping[int, list[GuestRead]] = {}


class Recording:
    """Writes what a session answers, into one file or a ring of files.

    Nothing here waits but `close`, if the file is to be on the disk then, and `release`.

    Args:
        path: of the file; its ending asks for compression when it is closed. With rotation, every name has
            its time too.
        rotation: when the next file begins.
        keep: how many files there are at most.
        pending: what is told of the file that is written, so that nothing is lost if this process is killed.
        adopt: earlier recordings of this name belong to this one: they are compressed, counted, removed.
        force: replace a file that is there.

    Attributes:
        size, requests: recorded, over all files.
        pending: for the session: what is not written yet.

    Raises:
        UsageError: there is such a file, or ``keep`` without rotation.
        NotSupportedError: compression with zstd, and no module for that.
    """

    def __init__(
        self,
        path: Path,
        *,
        rotation: Rotation = _NEVER,
        keep: int | None = None,
        pending: Pending | None = None,
        adopt: bool = False,
        force: bool = False,
    ) -> None:
        if keep is not None and not any(rotation):
            raise UsageError(
                "--keep without --rotate", why="there is only one file", hint="add --rotate 100MB"
            )
        self._shelf = Shelf(path, rotates=any(rotation), keep=keep, adopt=adopt, force=force)
        self._rotation, self._force = rotation, force
        self.pending = pending
        self._writer: CaptureWriter | None = None
        self._info: CaptureInfo | None = None
        self._guest: Guest | None = None
        self._steps: Callable[[], StepState] = StepState
        self._closed_size = self._next_id = 0
        self._until = 0.0
        self._held_since_ns = 0

    @property
    def files(self) -> list[Path]:
        """Those that are there, oldest first."""
        return self._shelf.files

    @property
    def size(self) -> int:
        """Bytes recorded, over all files, before they are compressed."""
        return self._closed_size + (self._writer.size if self._writer else 0)

    @property
    def requests(self) -> int:
        """Requests recorded, over all files."""
        return self._writer.next_id if self._writer else self._next_id

    @property
    def compressed(self) -> bool:
        """Whether files are compressed when they are closed."""
        return bool(self._shelf.naming.compression)

    def begin(
        self,
        info: CaptureInfo,
        guest: Guest | None = None,
        steps: Callable[[], StepState] = StepState,
    ) -> None:
        """Open the first file.

        Args:
            info: what every file says of itself.
            guest: what policies read of it is recorded too.
            steps: tells what is under way when a file is begun.

        Raises:
            UsageError: it is there.
            CaptureError: it cannot be written.
        """
        self._info, self._guest, self._steps = info, guest, steps
        self._open()
        if guest is not None:
            guest.reads = []

    def write(self, batch: list[Answered]) -> None:
        """Record what was answered; give it to a session. `turn` sees to it that it is in the file soon.

        Raises:
            CaptureError: no space, or the file was removed. What was recorded before is there.
        """
        writer = self._writer
        if writer is None or not batch:
            return
        if not writer.held:
            self._held_since_ns = batch[0].answered_ns
        writer.hold(batch, _by_place(batch, self._guest))
        self._settle(batch[-1].answered_ns)

    def turn(self) -> None:
        """Write what was held long enough, and begin the next file if it is time; to be called now and then.

        Raises:
            CaptureError: it cannot be written.
        """
        self._settle(monotonic_ns())
        self._shelf.turn()

    def rotate(self) -> None:
        """Begin the next file now, if there is anything in this one.

        Raises:
            UsageError: one file was asked for.
            CaptureError: it cannot be written.
        """
        if not self._shelf.naming.rotates:
            raise UsageError("this recording is one file", why="it was begun without rotation")
        if self._writer is not None and self._writer.requests:
            self._close(sync=False)
            self._open()

    def close(self, *, sync: bool = True) -> None:
        """Close the file, and have it compressed. `begin` goes on, when the domain is watched again.

        Raises:
            CaptureError: it cannot be written.
        """
        self._close(sync=sync)

    def discard(self) -> None:
        """Remove a file that nothing was written into, because the domain could not be watched."""
        if self._writer is not None and not self._writer.requests:
            writer, self._writer = self._writer, None
            self.files.remove(writer.path)
            writer.discard()

    def release(self, patience: float | None = None, given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait for what is still to be compressed, then end the process that does it.

        Args:
            patience: seconds to wait at most; what is not compressed then is there as it was.
            given_up: asked now and then whether to wait no longer.
        """
        self._shelf.release(patience, given_up)

    # Details

    def _settle(self, now_ns: int) -> None:
        """Write what is held, if that is much or old; then rotate, if that is due."""
        writer = self._writer
        if writer is None:
            return
        try:
            if writer.held >= _TOGETHER or (writer.held and now_ns - self._held_since_ns >= _HELD_NS):
                self._flush(writer)
            if self._is_full():
                self.rotate()
        except CaptureError:
            self._give_up()
            raise

    def _flush(self, writer: CaptureWriter) -> None:
        if not writer.held:
            return
        writer.flush()
        if self.pending is not None:
            self.pending.written(writer.size, writer.next_id)

    def _give_up(self) -> None:
        """Nothing more is written after a write has failed."""
        if self._guest is not None:
            self._guest.reads = None
        with suppress(CaptureError):
            self._close(sync=False)

    def _is_full(self) -> bool:
        size, seconds = self._rotation
        writer = self._writer
        return writer is not None and (
            (size is not None and writer.size >= size) or (seconds is not None and monotonic() >= self._until)
        )

    def _open(self) -> None:
        assert self._info is not None
        now_ns = monotonic_ns()
        started_ns = now_ns + self._info.started_ns - self._info.monotonic_ns
        times = {"started_ns": started_ns, "monotonic_ns": now_ns}
        info = replace(self._info, **times, steps=self._steps())
        path = self._shelf.next()
        self._writer = CaptureWriter(path, info, force=self._force, first_id=self._next_id)
        self._until = monotonic() + (self._rotation.seconds or 0.0)
        if self.pending is not None:
            self.pending.follow(self._writer)
        self._shelf.begun(path)

    def _close(self, *, sync: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            try:
                self._flush(writer)
            finally:
                # Before it is on the disk, which takes its time: what the teardown has answered counts as not
                # recorded, and would be written again for a process that is killed meanwhile.
                if self.pending is not None:
                    self.pending.follow(None)
            writer.close(sync=sync)
        finally:
            self._next_id = writer.next_id
            self._closed_size += writer.size
            self._shelf.closed(writer.path)


def _by_place(batch: list[Answered], guest: Guest | None) -> Mapping[int, list[GuestRead]]:
    """What was read of the guest, by the place of its request in the batch: the last that was taken before.

    The time of one that the deadline thread has answered is when that thread saw it, which is earlier.
    """
    if guest is None or not guest.reads:
        return _NO_READS
    reads, guest.reads = guest.reads, []
    placed: dict[int, list[GuestRead]] = {}
    for read in reads:
        taken_ns = read.at_ns - guest.offset_ns
        before = [at for at, answered in enumerate(batch) if answered.taken_ns <= taken_ns]
        placed.setdefault(before[-1] if before else 0, []).append(read)
    return placed
