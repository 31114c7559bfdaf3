"""The service: finds its domain, watches it, finds it again; reloads, reports and ends when told to."""

from __future__ import annotations

import logging
import signal
from importlib.metadata import version
from pathlib import Path
from time import monotonic, monotonic_ns, time, time_ns
from typing import TYPE_CHECKING, Any

from xenintro.capture.about import about
from xenintro.errors import DomainGoneError, NoSuchDomainError, UsageError, XenintroError
from xenintro.policy import chain, set_up, tear_down
from xenintro.service.capture import ServiceCapture
from xenintro.service.control import ControlSocket, own_socket_path
from xenintro.service.finder import Finder
from xenintro.service.metrics import TextFile
from xenintro.service.notify import Notifier
from xenintro.service.policies import load_all
from xenintro.service.report import stats_of, status_of, status_text
from xenintro.service.totals import Totals
from xenintro.session import Session
from xenintro.sinks.answered import AnsweredLines
from xenintro.traps import asked_for
from xenintro.xen.domains import called
from xenintro.xen.preflight import ring_interface
from xenintro.xen.rearming import HalfArmedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.pending import Pending
    from xenintro.events import Event
    from xenintro.service.layers import Layers, Settings
    from xenintro.service.policies import Loaded
    from xenintro.traps import Trap
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.monitor import Monitor
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)

#: Seconds between looks at the control socket while events come, at the domain while it is away, and between
#: two reports of how things are.
_CONTROL_EVERY, _FIND_EVERY, _REPORT_EVERY = 0.01, 1.0, 5.0

_IGNORED = (signal.SIGUSR2, signal.SIGTSTP, signal.SIGPIPE)


class Service:
    """Watches one domain until it is told to end. No threads: everything happens between two requests.

    Args:
        xc: an open libxc.
        layers: where settings come from, now and at every reload.
        attach: makes the monitor of a domid, with traps, a deadline, and whether it denies register writes.
        pending: what is not recorded yet, for who does that if this process dies.

    Attributes:
        settings: in force.
        policies: in force.
        capture: what is recorded.
        enforce: answers of policies are sent.
        monitor: of the domain while it is watched, else None.
        totals: what was counted.
        started, reloaded: seconds since the epoch; ``reloaded`` is None before the first time.
        reload_error: why the last reload changed nothing, else None.

    Raises:
        UsageError, NotSupportedError, PolicyError: the configuration is bad; nothing was done.
        DomainBusyError: a service for this domain runs already.
    """

    def __init__(
        self,
        xc: Xc,
        layers: Layers,
        attach: Callable[[int, tuple[Trap, ...], float, bool], Monitor],
        pending: Pending | None = None,
    ) -> None:
        self.layers = layers
        self._interface = ring_interface(xc)
        self.settings, self.policies, self._textfile = self._load()
        self.enforce = self.settings.config.policy.mode == "enforce"
        self.monitor: Monitor | None = None
        self.totals = Totals()
        self.started = time()
        self.reloaded: float | None = None
        self.reload_error: str | None = None
        self.version = xc.version()
        self._versions = {"version": version("xenintro"), "xen": self.version}
        self._attach = attach
        self._finder = Finder(xc, self.settings.name)
        self.control = ControlSocket(own_socket_path(self.settings.name))
        self.capture = ServiceCapture(self.settings.config.capture, self.settings.name, pending)
        self._notifier = Notifier()
        self._session: Session | None = None
        self._lines: AnsweredLines | None = None
        self._wanted = asked_for(self.settings.traps)
        self._ready = self._stopping = self._reload_asked = self._rotate_asked = False
        self._next_control = self._next_alive = self._next_report = self._since = 0.0

    def run(self) -> None:
        """Watch the domain whenever it is there.

        Raises:
            XenintroError: it cannot be watched, or was not released cleanly.
        """
        before = self._take_signals()
        try:
            while not self._stopping:
                info = self._finder.find()
                if info is None:
                    self._wait()
                else:
                    self._watch(info)
        finally:
            self._notifier.stopping()
            self.capture.end()
            self._write_metrics()
            self.control.close()
            self._notifier.close()
            self._finder.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    # The two states: watching, and waiting for the domain

    def _watch(self, info: DomainInfo) -> None:
        """Attach, and answer until the domain is gone, new settings need a new attachment, or the end."""
        try:
            denies = self.policies.denies
            self.monitor = monitor = self._attach(
                info.domid, self.settings.traps, self.settings.deadline, self.enforce and denies
            )
            if denies and not self.enforce:
                monitor.note_denials()
            set_up(self.policies.policies, monitor.guest)
            try:
                with monitor:
                    self._answer_all(info, monitor)
            finally:
                if self._session is not None:
                    self._session.record = self.capture.write
                    self._session.drained(monitor.drained)
                self.capture.pause()
                tear_down(self.policies.policies)
        except (DomainGoneError, NoSuchDomainError) as gone:
            _log.info("%s; waiting for it", gone.what)
        finally:
            self._session = self.monitor = None
            self.totals.end()
            self._next_report = 0.0

    def _record(self, batch: list[Answered]) -> None:
        # What the deadline thread has answered meanwhile was not there at once.
        self.totals.together[sum(not answered.late for answered in batch)] += 1
        self.capture.write(batch)

    def _answer_all(self, info: DomainInfo, monitor: Monitor) -> None:
        self._lines = AnsweredLines(info.domid, info.name, monitor.guest.offset_ns)
        self._session = session = Session(
            monitor,
            guest=monitor.guest,
            wanted=self._is_wanted,
            observers=[self._turn],
            record=self._record,
            enforce=self.enforce,
        )
        session.decide = chain(self.policies.policies, monitor.guest)
        self.capture.begin(self._about(monitor), monitor.guest, monitor.steps)
        self.totals.begin(session.summary)
        self._since = monotonic()
        _log.info("watching %s: %s", called(info), ", ".join(trap.text for trap in self.settings.traps))
        if self._stopping:
            session.stop()
        session.run()

    def _about(self, monitor: Monitor) -> CaptureInfo:
        return about(
            monitor,
            self.version,
            events=",".join(trap.text for trap in self.settings.traps),
            policies=self.policies.specs,
            enforce=self.enforce,
        )

    def _wait(self) -> None:
        """Let a second pass, or until somebody asks something."""
        if not self._ready:
            _log.info("waiting for %s", self.settings.name)
        until = monotonic() + _FIND_EVERY
        while not self._stopping and (left := until - monotonic()) > 0:
            self._tick(monotonic())
            self.control.wait(min(left, self._notifier.interval), *self._finder.fds)
            if self._finder.changed():
                break

    # What happens between two requests

    def _turn(self, batch: list[Answered]) -> None:
        """The session's observer: the answers are out, nobody waits."""
        if batch:
            if self.control.tails and self._lines is not None:
                first, line = self.totals.shown, self._lines.line
                self.control.tail([line(answered, first + at) for at, answered in enumerate(batch)])
            self.totals.count(batch, enforce=self.enforce)
        now = monotonic()
        if now >= self._next_control or self._reload_asked or self._rotate_asked:
            self._next_control = now + _CONTROL_EVERY
            self._tick(now)

    def _tick(self, now: float) -> None:
        if not self._ready:
            self._ready = True
            self._notifier.ready(status_text(self))
        if now >= self._next_alive:
            self._next_alive = now + self._notifier.interval
            self._notifier.alive()
        if self._reload_asked:
            self._reload_asked = False
            self._reload()
        if self._rotate_asked:
            self._rotate_asked = False
            self._rotate()
        self.capture.turn()
        self.control.serve(self._answer)
        if now >= self._next_report:
            # The first rates after an attachment come sooner.
            self._next_report = now + min(_REPORT_EVERY, max(now - self._since, 1.0))
            self._report()

    def _report(self) -> None:
        self.totals.look(self.monitor.info.nr_vcpus if self.monitor else 0)
        self._notifier.status(status_text(self))
        self._write_metrics()
        if self._lines is not None:
            self._lines.offset_ns = time_ns() - monotonic_ns()  # the time of day may have been corrected

    def _write_metrics(self) -> None:
        if self._textfile is None:
            return
        monitor = self.monitor
        build = {
            **self._versions,
            "interface_version": str(monitor.interface.version) if monitor else "",
        }
        try:
            self._textfile.write(
                self.totals,
                domain=self.settings.name,
                attached=monitor is not None,
                dropped=self.control.dropped,
                captured=self.capture.size,
                build=build,
            )
        except OSError as error:
            _log.warning("cannot write %s: %s", self._textfile.path, error.strerror)

    def _is_wanted(self, event: Event) -> bool:
        return self._wanted(event)

    # Orders

    def _answer(self, order: dict[str, Any]) -> Mapping[str, Any] | None:
        """Do what a client of the control socket asks; None: it wants the events."""
        match order:
            case {"do": "status"}:
                return status_of(self)
            case {"do": "stats"}:
                return stats_of(self)
            case {"do": "tail"}:
                return None
            case {"do": "mode", "mode": "observe" | "enforce" as mode}:
                self._set_mode(enforce=mode == "enforce")
                return status_of(self)
            case {"do": "reload"}:
                self._reload()
                if self.reload_error is not None:
                    raise UsageError(
                        "nothing was changed", why=self.reload_error, hint="the old settings stay in force"
                    )
                return status_of(self)
            case {"do": "rotate"}:
                self.capture.rotate()
                return status_of(self)
        raise UsageError("not an order of the service", why=f"it knows {', '.join(ORDERS)}")

    def _set_mode(self, *, enforce: bool) -> None:
        if enforce and self.monitor is not None and self.policies.denies:
            self.monitor.deny()
        if self._session is not None:
            self._session.enforce = enforce
        if enforce == self.enforce:
            return
        self.enforce = enforce
        _log.info("mode: %s", "enforce" if enforce else "observe")

    def _rotate(self) -> None:
        try:
            self.capture.rotate()
        except UsageError as error:
            _log.warning("rotate: %s: %s", error.what, error.why)

    def _load(self) -> tuple[Settings, Loaded, TextFile | None]:
        settings = self.layers.load()
        directory = self.layers.path.parent if self.layers.path else Path()
        policies = load_all(settings.config.policy.files, directory, self._interface)
        textfile = settings.config.metrics.textfile
        return settings, policies, TextFile(textfile) if textfile else None

    def _reload(self) -> None:
        """Read everything again, and put it in force between two requests; what is bad changes nothing."""
        self._notifier.reloading()
        try:
            self._apply(*self._load())
        except XenintroError as error:
            self.reload_error = ": ".join(part for part in (error.what, error.why) if part)
            _log.error("reload: %s; the old settings stay in force", self.reload_error)
            if isinstance(error, HalfArmedError):
                self._attach_anew()
        else:
            self.reload_error = None
            self.reloaded = time()
            _log.info("reloaded")
        self._notifier.ready(status_text(self))

    def _apply(self, settings: Settings, policies: Loaded, textfile: TextFile | None) -> None:
        """Put settings in force; what can fail comes first."""
        if settings.name != self.settings.name:
            raise UsageError("domain.name has changed", why="a service keeps its domain: start another one")
        old, session, monitor = self.policies.policies, self._session, self.monitor
        again = False
        enforce = settings.config.policy.mode == "enforce"
        denying = enforce and policies.denies
        if session is not None and monitor is not None:
            if denying:
                monitor.check_deny(settings.traps)
            set_up(policies.policies, monitor.guest)
            try:
                again = settings.deadline != self.settings.deadline or not monitor.rearm(
                    settings.traps, denying=denying
                )
            except BaseException:
                tear_down(policies.policies)
                raise
        self.settings, self.policies, self._textfile = settings, policies, textfile
        self._wanted = asked_for(settings.traps)
        self._set_mode(enforce=enforce)
        self.capture.change(settings.config.capture)
        if session is not None and monitor is not None:
            session.decide = chain(policies.policies, monitor.guest)
            tear_down(old)
            if again:
                self._attach_anew()

    def _attach_anew(self) -> None:
        """Give the domain back and begin again with the settings in force."""
        _log.info("these settings need a new attachment: nothing is watched meanwhile")
        if self._session is not None:
            self._session.stop()

    def _take_signals(self) -> dict[int, Any]:
        """SIGTERM, SIGINT and SIGQUIT end the service, SIGHUP reloads, SIGUSR1 rotates; others do nothing."""
        handlers: dict[int, Any] = dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), self._stop)
        handlers[signal.SIGHUP] = self._ask_reload
        handlers[signal.SIGUSR1] = self._ask_rotate
        handlers |= dict.fromkeys(_IGNORED, signal.SIG_IGN)
        return {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def _stop(self, *_: object) -> None:
        self._stopping = True
        if self._session is not None:
            self._session.stop()

    def _ask_reload(self, *_: object) -> None:
        self._reload_asked = True

    def _ask_rotate(self, *_: object) -> None:
        self._rotate_asked = True


#: What the control socket understands.
ORDERS = ("status", "stats", "tail", "mode", "reload", "rotate")
