"""What a verb that watches says on stderr: the beginning, the end, and what it cost."""

from __future__ import annotations

import os
import shlex
import sys
from time import monotonic_ns
from typing import TYPE_CHECKING

from xenintro.capture.naming import COMPRESSIONS
from xenintro.sinks.stderr import NeverWaiting
from xenintro.units import format_ns, format_size
from xenintro_cli.output import say
from xenintro_cli.recording import Progress
from xenintro_cli.summary import summary_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenintro.answered import Answered
    from xenintro.capture.recording import Recording
    from xenintro.session import Session
    from xenintro.xen.monitor import Monitor
    from xenintro_cli.signals import Heard
    from xenintro_cli.style import Style


class Talk:
    """The words around one session."""

    def __init__(self, style: Style, *, quiet: bool) -> None:
        self._style = style
        self._quiet = quiet
        self._stopping_ns: int | None = None
        self._progress: Progress | None = None

    def progress(self, recording: Recording) -> Callable[[list[Answered]], None]:
        """What shows how a recording grows, where somebody looks."""
        if self._quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return lambda _: None
        self._progress = Progress(recording)
        return self._progress

    def started(
        self, monitor: Monitor, version: str, events: str, recording: Recording | None = None
    ) -> None:
        """The domain is watched."""
        info = monitor.info
        vcpus = f"{info.nr_vcpus} vCPU{'s' if info.nr_vcpus > 1 else ''}"
        lines = [
            f"watching {_called(monitor)}: {events}",
            self._style.dim(f"Xen {version}, {monitor.interface.id}, {vcpus}; Ctrl-C ends"),
        ]
        if recording is not None:
            lines.append(self._style.dim(f"recording to {recording.files[-1]}"))
        if not self._quiet:
            # The guest runs already, and its events do not wait for a reader of stderr.
            NeverWaiting().write("".join(f"{line}\n" for line in lines))

    def stopping(self) -> None:
        """The domain is about to be given back."""
        self._stopping_ns = monotonic_ns()
        if self._progress is not None:
            self._progress.clear()

    def ended(self, session: Session, monitor: Monitor, dropped: int, rules: Sequence[str] = ()) -> None:
        """The domain was given back, or could not be; ``dropped`` lines were not printed.

        ``rules`` are the names of those that were asked.
        """
        if self._stopping_ns is None:  # never attached: the error says it all
            return
        if not monitor.failures:
            took = format_ns(monotonic_ns() - self._stopping_ns).replace("µ", self._style.micro)
            self._say(f"stopped: traps off, all answered, domain released ({took})")
        lines = summary_lines(
            session.summary,
            name=_called(monitor),
            nr_vcpus=monitor.info.nr_vcpus,
            unanswered=monitor.unanswered,
            deadline=monitor.deadline,
            rules=rules,
            style=self._style,
        )
        for line in lines:
            self._say(line)
        if dropped:
            self._say(f"  {dropped} lines were not printed: nobody read the ones before")

    def finish(self, recording: Recording, heard: Heard) -> None:
        """Close a recording, wait for what is compressed unless a signal comes, and say what was written.

        Raises:
            CaptureError: it cannot be written.
        """
        if self._stopping_ns is None:  # never attached
            return
        before = heard.count
        try:
            recording.close()
            before = heard.count
            if recording.compressed:
                self._say(f"  compressing {format_size(recording.size)}; Ctrl-C leaves it as it is")
        finally:
            recording.release(given_up=lambda: heard.count > before)
        files = [path for path in recording.files if path.exists()]
        if recording.compressed and not all(path.suffix in COMPRESSIONS for path in files):
            self._say("  not compressed")
        if files:
            written = format_size(sum(path.stat().st_size for path in files))
            last = shlex.quote(str(files[-1]))
            what = last if len(files) == 1 else f"{len(files)} files, the last is {last}"
            self._say(f"  wrote {what}  {written}")
            self._say(f"  next: xenintro inspect {last}")

    def _say(self, text: str) -> None:
        if not self._quiet:
            say(text, color=self._style.color)


def _called(monitor: Monitor) -> str:
    info = monitor.info
    return f"{info.name} (domid {info.domid})" if info.name else f"domain {info.domid}"
