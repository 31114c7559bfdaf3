"""What the verbs that read a capture share: its lines, the words around them, and `watch -r`."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

from xenintro.capture.reader import Capture
from xenintro.capture.records import UNANSWERED
from xenintro.capture.replay import traps_of
from xenintro.session import Summary
from xenintro.traps import asked_for, parse_traps
from xenintro_cli import options
from xenintro_cli.output import Origin, Output, say, writer
from xenintro_cli.style import Style
from xenintro_cli.summary import summary_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from xenintro.abi import Interface
    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.events import Event
    from xenintro_cli.watch import Choice

#: Options of `watch` that a capture has no use for.
_LIVE = ("domid", "name", "policy", "mode", "deadline", "write", "selection")

#: Events printed at once.
_BATCH = 64


def show(path: str, choice: Choice) -> int:
    """Print a capture as `watch` printed it: what was recorded, not what would be answered now.

    Raises:
        UsageError: options that make no sense with a capture.
        DamagedInputError: it is damaged; what could be read was printed.
    """
    options.refuse(
        _LIVE,
        "-r reads a capture",
        why="what was decided and answered is in it, and only shown",
        hint=f"to decide again: xenintro replay {path} -p FILE",
    )
    events = choice.events if options.is_given("events") else ""
    with Capture(path) as capture:
        talk = ReadTalk(capture.info, capture.interface, choice.form.color, quiet=choice.quiet)
        origin = origin_of(capture.info)
        output = choice.form.output(origin, writer(), noted=bool(capture.info.policies))
        talk.started(path, events or capture.info.events)
        shown = _Shown(capture.info, choice, choice.form.shows(origin))
        try:
            shown.run(capture, wanted_of(events, capture.info, capture.interface), output)
        except KeyboardInterrupt:
            pass
        finally:
            talk.ended(shown.summary, shown.unanswered)
        if capture.damage is not None:
            raise capture.damage
    return 0


class _Shown:
    """Goes through a capture as a session goes through a ring."""

    def __init__(self, info: CaptureInfo, choice: Choice, shows: Callable[[Answered], bool] | None) -> None:
        self._choice = choice
        self._shows = shows
        self._now_ns = info.started_ns
        self.summary = Summary(lambda: self._now_ns)
        self.unanswered = 0

    def run(self, capture: Iterable[Answered], wanted: Callable[[Event], bool], output: Output) -> None:
        limit, duration = self._choice.count, self._choice.duration
        batch: list[Answered] = []
        try:
            for answered in capture:
                if self._now_ns == 0:  # a foreign file does not say when it was begun
                    self._now_ns = answered.taken_ns
                    self.summary = Summary(lambda: self._now_ns)
                self._now_ns = max(self._now_ns, answered.taken_ns, answered.answered_ns)
                if duration is not None and self.summary.duration_ns > duration * 1e9:
                    break
                self.summary.count(answered)
                self.unanswered += answered.answer == UNANSWERED
                if not wanted(answered.event) or not (self._shows is None or self._shows(answered)):
                    continue
                self.summary.shown += 1
                batch.append(answered)
                if len(batch) == _BATCH:
                    output(batch)
                    batch = []
                if self.summary.shown == limit:
                    break
        finally:
            self.summary.end()
        output(batch)


def wanted_of(events: str, info: CaptureInfo, interface: Interface) -> Callable[[Event], bool]:
    """What is shown: the events that were asked for, now or when the capture was made; else everything."""
    traps = parse_traps(events) if events else traps_of(info, interface)
    return asked_for(traps) if traps else lambda event: True


def origin_of(info: CaptureInfo) -> Origin:
    """The domain that a capture is of."""
    return Origin(info.domid, info.domain)


class ReadTalk:
    """What is said on stderr around a capture that is read."""

    def __init__(self, info: CaptureInfo, interface: Interface, color: str, *, quiet: bool) -> None:
        self._info = info
        self._interface = interface
        self._style = Style.of(sys.stderr, color)
        self._quiet = quiet

    def started(self, path: str, events: str) -> None:
        """The capture is open."""
        info = self._info
        self.say(f"reading {path}: {_called(info)}: {events or 'all events'}{_when(info)}")
        vcpus = f", {info.nr_vcpus} vCPU{'s' if info.nr_vcpus > 1 else ''}" if info.nr_vcpus else ""
        self.say(self._style.dim(f"Xen {info.xen or info.release or 'unknown'}, {self._interface.id}{vcpus}"))

    def ended(self, summary: Summary, unanswered: int, rules: Sequence[str] = ()) -> None:
        """It was read to its end, or to where it was enough: the numbers, as when it was recorded."""
        lines = summary_lines(
            summary,
            name=_called(self._info),
            nr_vcpus=self._info.nr_vcpus or 1,
            unanswered=unanswered,
            deadline=self._info.deadline or 0.0,
            style=self._style,
            rules=rules,
        )
        for line in lines:
            self.say(line)

    def say(self, text: str) -> None:
        """A line on stderr, unless quiet."""
        if not self._quiet:
            say(text, color=self._style.color)


def _when(info: CaptureInfo) -> str:
    if not 0 < info.started_ns < 1 << 63:
        return ""
    return f", recorded {datetime.fromtimestamp(info.started_ns // 10**9).astimezone():%Y-%m-%d %H:%M:%S}"


def _called(info: CaptureInfo) -> str:
    if info.domain:
        return f"{info.domain} (domid {info.domid})"
    return "an unknown domain" if info.domid is None else f"domain {info.domid}"
