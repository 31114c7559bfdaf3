"""``xenintro watch``: attach, print, answer, let go."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import click

from xenintro.session import Session
from xenintro.traps import asked_for, parse_traps
from xenintro.units import format_ns
from xenintro_cli import options
from xenintro_cli.host import find_domain, open_xen
from xenintro_cli.output import HumanOutput, JsonOutput, say
from xenintro_cli.stream import LiveStream
from xenintro_cli.style import Style
from xenintro_cli.summary import summary_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.monitor import Monitor

#: Watched when no events are named: rare in a running guest, and possible on every x86 host.
DEFAULT_EVENTS = "cr0,cr3,cr4,xcr0,msr:efer,msr:star,msr:lstar,guest-request"

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM)


@click.command(name="watch")
@options.domain
@click.option(
    "-e",
    "--events",
    multiple=True,
    default=[DEFAULT_EVENTS],
    show_default=True,
    metavar="LIST",
    help="What to trap, more than once if you like: cr0 cr3 cr4 xcr0 msr:NAME cpuid guest-request int3 debug "
    "singlestep desc interrupt mem:rwx@GFN[-GFN]. Modifiers: cr4:onchange:mask=0x80, guest-request:async, "
    "mem:w@GFN:step.",
)
@click.option("-c", "--count", type=click.IntRange(min=1), help="Stop after this many events.")
@click.option("-t", "--duration", type=options.Duration(), help="Stop after this long: 30s, 500ms.")
@options.output_format
@options.color
@options.xen
@options.talk
def command(
    domid: int | None,
    name: str | None,
    events: tuple[str, ...],
    count: int | None,
    duration: float | None,
    output_format: str,
    color: str,
    selection: str,
    quiet: bool,
) -> None:
    """Print events of one domain as they happen, and let each of them happen.

    Ctrl-C ends it: every request is answered, every trap is taken back, the domain runs on.

    \b
    Examples:
      xenintro watch --domid 1 -e cr3 -c 20
      xenintro watch --name win10 -e mem:w@0x104-0x10f,msr:lstar --format jsonl
    """  # noqa: D301 - click takes the backspace for a mark
    watch(domid, name, ",".join(events), count, duration, output_format, color, selection, quiet=quiet)


def watch(
    domid: int | None,
    name: str | None,
    events: str,
    count: int | None,
    duration: float | None,
    output_format: str,
    color: str,
    selection: str,
    *,
    quiet: bool,
    pace: int | None = None,
) -> None:
    """What the command does; ``demo`` does the same on a simulator with a guest of its own pace."""
    traps = parse_traps(events)
    talk = _Talk(Style.of(sys.stderr, color), quiet=quiet)
    with open_xen(selection, pace) as xc:
        # The extension is imported only now: --help works where it is not installed.
        from xenintro.xen.monitor import Monitor

        monitor = Monitor(xc, find_domain(xc, domid, name), traps)
        info = monitor.info
        stream = LiveStream()
        output = (
            JsonOutput(info.domid, info.name, stream.write)
            if output_format == "jsonl"
            else HumanOutput(color, stream.write)
        )
        session = Session(
            monitor, wanted=asked_for(traps), observers=[output], limit=count, duration=duration
        )
        with _stopped_by_signals(session):
            try:
                with monitor:
                    talk.started(monitor, xc.version(), events)
                    try:
                        session.run()
                    finally:
                        talk.stopping()
            finally:
                talk.ended(session, monitor, stream.dropped)
        stream.finish()


class _Talk:
    """What ``watch`` says on stderr."""

    def __init__(self, style: Style, *, quiet: bool) -> None:
        self._style = style
        self._quiet = quiet
        self._stopping_ns: int | None = None

    def started(self, monitor: Monitor, version: str, events: str) -> None:
        info = monitor.info
        vcpus = f"{info.nr_vcpus} vCPU{'s' if info.nr_vcpus > 1 else ''}"
        self._say(f"watching {_called(monitor)}: {events}")
        self._say(self._style.dim(f"Xen {version}, {monitor.interface.id}, {vcpus}; Ctrl-C ends"))

    def stopping(self) -> None:
        self._stopping_ns = monotonic_ns()

    def ended(self, session: Session, monitor: Monitor, dropped: int) -> None:
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
            style=self._style,
        )
        for line in lines:
            self._say(line)
        if dropped:
            self._say(f"  {dropped} lines were not printed: nobody read the ones before")

    def _say(self, text: str) -> None:
        if not self._quiet:
            say(text, color=self._style.color)


def _called(monitor: Monitor) -> str:
    info = monitor.info
    return f"{info.name} (domid {info.domid})" if info.name else f"domain {info.domid}"


@contextmanager
def _stopped_by_signals(session: Session) -> Iterator[None]:
    """Let every signal that a terminal or a service manager sends end the session in order.

    A second one changes nothing. Ctrl-Z is ignored: a stopped process answers nobody, and the guest would
    freeze. What was ignored before (nohup) stays ignored.
    """
    before: dict[int, Any] = {}
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda *_: session.stop())
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
