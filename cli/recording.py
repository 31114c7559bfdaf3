"""Recording while a domain is watched: what verbs do around it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from xenintro.capture.naming import Rotation, default_name
from xenintro.capture.recording import Recording
from xenintro.sinks.stderr import NeverWaiting
from xenintro.units import format_size

if TYPE_CHECKING:
    from xenintro.answered import Answered
    from xenintro.capture.pending import Pending
    from xenintro.xen.monitor import Monitor

#: Seconds between two progress lines.
_EVERY = 0.5


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks to be recorded; without a path, the name says domain and time."""

    path: Path | None = None
    rotation: Rotation = Rotation()
    count: int | None = None
    force: bool = False

    def recording(self, monitor: Monitor, pending: Pending) -> Recording:
        """A recording of this domain that is not begun."""
        path, info = self.path, monitor.info
        if path is None:
            path = default_name(info.name, info.domid, None if any(self.rotation) else datetime.now(UTC))
        return Recording(path, rotation=self.rotation, keep=self.count, pending=pending, force=self.force)


class Progress:
    """One line on the terminal: events, rate, bytes. It never waits; an observer of a session."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._out = NeverWaiting()
        self._next = 0.0
        self._before = (monotonic(), 0)

    def __call__(self, batch: list[Answered]) -> None:
        """Say how far it is, twice a second."""
        now = monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        then, before = self._before
        events = self._recording.requests
        self._before = now, events
        rate = (events - before) / max(now - then, 1e-3)
        text = f"  {events:,} events   {rate:,.0f}/s   {format_size(self._recording.size)}"
        self._out.write("\r\x1b[K" + text.replace(",", " "))

    def clear(self) -> None:
        """Leave the line as it was before."""
        if self._next:
            self._out.write("\r\x1b[K")
