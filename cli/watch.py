"""``xenintro watch``: attach, print, answer, let go."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import click
import msgspec

from xenintro.capture.about import about
from xenintro.capture.naming import Rotation
from xenintro.errors import UsageError
from xenintro.sinks.stderr import NeverWaiting
from xenintro.traps import asked_for, parse_traps
from xenintro_cli import options
from xenintro_cli.ending import guarded
from xenintro_cli.host import find_domain, libraries
from xenintro_cli.output import Form, Origin
from xenintro_cli.recorded import show
from xenintro_cli.recording import Keep
from xenintro_cli.signals import ALL_ENDING, Heard, stopped_by_signals
from xenintro_cli.stream import LiveStream
from xenintro_cli.style import Style
from xenintro_cli.talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.recording import Recording
    from xenintro.policy import Policy
    from xenintro.policy.language.columns import Columns
    from xenintro.policy.language.expression import Expression
    from xenintro.supervise.link import Link
    from xenintro.xen.monitor import Monitor
    from xenintro.xen.xc import Xc
#: Seconds that a policy gets after the end of --duration, and again before it is interrupted.
_GRACE = 1.0


@click.command(name="watch")
@options.domain
@click.option("-r", "--read", metavar="FILE", help="Show a capture as it was shown; - is stdin.")
@options.events
@click.option("-c", "--count", type=click.IntRange(min=1), help="Stop after this many events.")
@click.option("-t", "--duration", type=options.Duration(), help="Stop after this long: 30s, 500ms.")
@options.policy
@options.deadline
@options.write
@options.rotate
@options.force
@options.form
@options.color
@options.xen
@options.talk
def command(
    domid: int | None,
    name: str | None,
    read: str | None,
    events: tuple[str, ...],
    count: int | None,
    duration: float | None,
    policy: tuple[str, ...],
    mode: str,
    deadline: float,
    write: Path | None,
    rotate: Rotation | None,
    keep: int | None,
    force: bool,
    condition: Expression[Answered] | None,
    output_format: str,
    fields: Columns | None,
    color: str,
    selection: str,
    quiet: bool,
) -> int:
    """Print events of one domain as they happen, and let each of them happen.

    Ctrl-C ends it: every request is answered, every trap is taken back, the domain runs on. So it does if
    this program is killed, and a policy that does not answer in time holds up nobody.

    \b
    Examples:
      xenintro watch --domid 1 -e cr3 -c 20
      xenintro watch --name win10 -e mem:w@0x104-0x10f,msr:lstar --format jsonl
      xenintro watch --name win10 -e cr3 -f 'new_value >> 12 == 0x1ab and cpl() == 0'
      xenintro watch --name win10 -w win10.pcapng
      xenintro watch -r win10.pcapng -e msr:lstar
    """  # noqa: D301 - click takes the backspace for a mark
    choice = Choice(
        domid=domid,
        name=name,
        events=",".join(events),
        count=count,
        duration=duration,
        policies=policy,
        enforce=mode == "enforce",
        deadline=deadline,
        keep=kept(write, rotate, keep, force=force),
        form=options.formed(output_format, fields, condition, color),
        quiet=quiet,
    )
    return watch(choice, selection) if read is None else show(read, choice)


def kept(write: Path | None, rotate: Rotation | None, keep: int | None, *, force: bool) -> Keep | None:
    """What the options of `watch` ask to be recorded.

    Raises:
        UsageError: how without where.
    """
    if write is None:
        if rotate or keep or force:
            raise UsageError("nothing is recorded", why="--rotate, --keep and --force are for -w FILE")
        return None
    return Keep(path=write, rotation=rotate or Rotation(), count=keep, force=force)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks of one session."""

    domid: int | None = None
    name: str | None = None
    events: str = options.EVENTS
    count: int | None = None
    duration: float | None = None
    policies: tuple[str, ...] = ()
    enforce: bool = False
    deadline: float = options.DEADLINE
    keep: Keep | None = None
    printing: bool = True
    form: Form = Form()
    quiet: bool = False


def watch(choice: Choice, selection: str, pace: int | None = None) -> int:
    """What the command does; ``demo`` does the same on a simulator with a guest of its own pace."""
    parse_traps(choice.events)
    with libraries(selection, pace) as directory:
        # Native parts are imported only now: --help works where they are not installed.
        from xenintro.supervise.front import supervised
        from xenintro.xen.xc import Xc, libraries_of

        library, own_domid = libraries_of(directory)

        def work(link: Link) -> int:
            with Xc(library, own_domid=own_domid) as xc:
                watch_domain(choice, xc, link)
            return 0

        return supervised(library, own_domid, work, guarded, ALL_ENDING)


def watch_domain(choice: Choice, xc: Xc, link: Link) -> None:
    """Watch one domain until it ends: what the worker process does."""
    from xenintro.policy import load_all, may_deny
    from xenintro.xen.monitor import Monitor
    from xenintro.xen.preflight import ring_interface

    stream = LiveStream()
    talk = Talk(Style.of(sys.stderr, choice.form.color), quiet=choice.quiet)
    elsewhere = NeverWaiting()  # what a policy prints is no event
    with redirect_stdout(elsewhere):
        policies = load_all(choice.policies, ring_interface(xc))
    denying = may_deny(policies)
    monitor = Monitor(
        xc,
        find_domain(xc, choice.domid, choice.name),
        parse_traps(choice.events),
        deadline=choice.deadline,
        watcher=link,
        denying=choice.enforce and denying,
    )
    if denying and not choice.enforce:
        monitor.note_denials()
    recording = None if choice.keep is None else choice.keep.recording(monitor, link.pending)
    observers = _observers(choice, monitor, stream, recording, talk)
    try:
        with redirect_stdout(elsewhere):
            _run(choice, xc, monitor, policies, stream, recording, talk, observers, link)
    finally:
        if recording is not None:  # not closed if attaching has failed: something may have happened by then
            recording.discard()
            recording.close()
            recording.release(patience=0)
    stream.finish()


def _run(
    choice: Choice,
    xc: Xc,
    monitor: Monitor,
    policies: list[Policy],
    stream: LiveStream,
    recording: Recording | None,
    talk: Talk,
    observers: list[Callable[[list[Answered]], None]],
    link: Link,
) -> None:
    from xenintro.policy import running
    from xenintro.session import Session

    if recording is not None:
        recording.begin(_about(choice, xc, monitor), monitor.guest, monitor.steps)
    session = Session(
        monitor,
        guest=monitor.guest,
        enforce=choice.enforce,
        wanted=asked_for(parse_traps(choice.events)),
        shows=choice.form.shows(_origin(monitor)),
        observers=observers,
        record=None if recording is None else recording.write,
        limit=choice.count,
        duration=choice.duration,
    )
    with (
        running(policies, monitor.guest) as session.decide,
        stopped_by_signals(session, stream) as heard,
        _finished(recording, talk, link, heard),
        _stopped_in_time(choice.duration),
    ):
        try:
            try:
                with monitor:
                    talk.started(monitor, xc.version(), choice.events, recording)
                    try:
                        session.run()
                    finally:
                        talk.stopping()
            finally:
                session.drained(monitor.drained)
        finally:
            rules = [rule.name for policy in policies for rule in policy.rules]
            talk.ended(session, monitor, stream.dropped, rules)


def _about(choice: Choice, xc: Xc, monitor: Monitor) -> CaptureInfo:
    return about(
        monitor, xc.version(), events=choice.events, policies=choice.policies, enforce=choice.enforce
    )


def _observers(
    choice: Choice, monitor: Monitor, stream: LiveStream, recording: Recording | None, talk: Talk
) -> list[Callable[[list[Answered]], None]]:
    """Who is shown events, and when they have come is told that time passes."""
    observers: list[Callable[[list[Answered]], None]] = []
    if choice.printing:
        observers.append(choice.form.output(_origin(monitor), stream.write, noted=bool(choice.policies)))
    if recording is not None:
        if not choice.printing:
            observers.append(talk.progress(recording))
        observers.append(lambda _: recording.turn())  # the last: it fails where there is no space
    return observers


def _origin(monitor: Monitor) -> Origin:
    return Origin(monitor.info.domid, monitor.info.name, monitor.guest.offset_ns)


@contextmanager
def _finished(recording: Recording | None, talk: Talk, link: Link, heard: Heard) -> Iterator[None]:
    try:
        yield
    finally:
        if recording is not None:
            with link.finishing():
                talk.finish(recording, heard)


@contextmanager
def _stopped_in_time(duration: float | None) -> Iterator[None]:
    """Stop a session whose loop does not come round to see that its time is over: a policy that hangs."""
    if duration is not None:
        signal.setitimer(signal.ITIMER_REAL, duration + _GRACE, _GRACE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
