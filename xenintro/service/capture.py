"""What a service records. What goes wrong with that is said and tried again; the domain is watched anyway."""

from __future__ import annotations

import logging
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from xenintro.capture.naming import SUFFIX
from xenintro.capture.recording import Recording
from xenintro.capture.stream import zstd_module
from xenintro.errors import UsageError, XenintroError
from xenintro.service.config import rotation_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.pending import Pending
    from xenintro.guest import Guest
    from xenintro.service.config import Capture
    from xenintro.xen.stepping import StepState

_log = logging.getLogger(__name__)

#: Seconds after which a recording that failed is begun anew.
_AGAIN = 60.0
#: How long the end of the service waits for compression; the next start does what is left.
_PATIENCE = 5.0


class ServiceCapture:
    """The recording of a service, over all attachments.

    Args:
        settings: what is to be recorded, if anything.
        name: of the domain: what files are called if only their directory is given.
        pending: what is not written yet, for who writes it if this process dies.

    Attributes:
        settings: in force.
        error: why nothing is recorded, else None.
    """

    def __init__(self, settings: Capture, name: str, pending: Pending | None) -> None:
        self.pending = pending
        self.settings = settings
        self.error: str | None = None
        self._name = name
        self._recording: Recording | None = None
        self._begun: tuple[CaptureInfo, Guest, Callable[[], StepState]] | None = None
        self._size = 0
        self._again = 0.0
        self._open()

    @property
    def path(self) -> Path | None:
        """The file that is written now."""
        recording = self._recording
        return (
            recording.files[-1] if recording and recording.files and self._begun and not self.error else None
        )

    @property
    def size(self) -> int:
        """Bytes written since the service started, before they are compressed."""
        return self._size + (self._recording.size if self._recording else 0)

    def begin(self, info: CaptureInfo, guest: Guest, steps: Callable[[], StepState]) -> None:
        """The domain is watched from now on; see `xenintro.capture.recording.Recording.begin`."""
        self._begun = info, guest, steps
        self._begin()

    def write(self, batch: list[Answered]) -> None:
        """Record what was answered; a session's ``record``."""
        if self._recording is not None and self.error is None:
            try:
                self._recording.write(batch)
            except XenintroError as error:
                self._failed(error)

    def turn(self) -> None:
        """To be called now and then: files become old, and disks empty."""
        if self._recording is None:
            return
        if self.error is not None and self._begun is not None and monotonic() >= self._again:
            self._begin()
        try:
            self._recording.turn()
        except XenintroError as error:
            self._failed(error)

    def rotate(self) -> None:
        """Begin the next file now.

        Raises:
            UsageError: nothing is recorded.
        """
        if self._recording is None or self._begun is None:
            raise UsageError(
                "nothing is recorded",
                why="there is no capture.path" if self._recording is None else "the domain is not watched",
            )
        if self.error is not None:
            self._begin()
            return
        try:
            self._recording.rotate()
        except XenintroError as error:
            self._failed(error)

    def pause(self, *, sync: bool = True) -> None:
        """The domain is not watched any more, for now; with ``sync`` what was written is on the disk then."""
        self._begun = None
        if self._recording is not None:
            try:
                self._recording.close(sync=sync)
            except XenintroError as error:
                self._failed(error)

    def change(self, settings: Capture) -> None:
        """Record as new settings say, from now on. A guest may wait: this does not."""
        if settings == self.settings:
            return
        begun = self._begun
        self.pause(sync=False)
        self.end(patience=0)
        self.settings = settings
        try:
            self._open()
        except XenintroError as error:
            self._failed(error)
        if begun is not None:
            self.begin(*begun)

    def end(self, patience: float = _PATIENCE) -> None:
        """Close everything, and wait so many seconds for what is compressed."""
        self.pause()
        self._size = self.size
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.release(patience)

    def _open(self) -> None:
        self.error = None
        if self.settings.path is None:
            return
        path = Path(self.settings.path)
        try:
            if SUFFIX not in path.name:
                path = path / f"{self._name}{SUFFIX}{'.zst' if zstd_module() else '.gz'}"
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._recording = Recording(
                path,
                rotation=rotation_of(self.settings),
                keep=self.settings.keep,
                pending=self.pending,
                adopt=True,
            )
        except OSError as error:
            raise UsageError(
                f"capture.path: cannot write {path}", why=error.strerror or str(error)
            ) from error

    def _begin(self) -> None:
        if self._recording is None or self._begun is None:
            return
        try:
            self._recording.begin(*self._begun)
        except XenintroError as error:
            self._failed(error)
        else:
            self.error = None
            _log.info("recording to %s", self._recording.files[-1])

    def _failed(self, error: XenintroError) -> None:
        self.error = ": ".join(part for part in (error.what, error.why) if part)
        self._again = monotonic() + _AGAIN
        _log.error("nothing is recorded: %s; tried again in %.0f s", self.error, _AGAIN)
