"""``watch``, many times in a row on one simulator: forked from this process, which has all imported."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from tests.cli.runner import Outcome
from xenintro.sim.launch import Simulation
from xenintro.supervise import limits
from xenintro.supervise.front import supervised
from xenintro.xen.xc import Xc, libraries_of
from xenintro_cli.ending import guarded
from xenintro_cli.output import Form
from xenintro_cli.watch import Choice, watch_domain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.supervise.link import Link

DEADLINE = 30.0


class Watching:
    """A ``watch`` that runs.

    Attributes:
        pid: of the process that a shell would know.
    """

    def __init__(self, pid: int, streams: tuple[Any, Any]) -> None:
        self.pid = pid
        self._streams = streams

    def finished(self) -> Outcome:
        """Wait for its end; killed if that takes too long."""
        end = os.pidfd_open(self.pid)
        try:
            if not select.select([end], [], [], DEADLINE)[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError("it does not end")
        finally:
            os.close(end)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode())
            stream.close()
        return Outcome(code, *texts)


class Forker:
    """One simulated host, and as many sessions on it as a test likes.

    Args:
        simulation: the host.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._loaded = libraries_of(str(simulation.directory))
        self._violations: list[dict[str, Any]] = []

    def start(self, events: str, *, patience: float | None = None, **choice: Any) -> Watching:
        """Start ``watch``; options as in `Choice`.

        Args:
            events: what to trap.
            patience: instead of the seconds after which a supervisor takes a call for hung.
            choice: more options.
        """
        streams = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed at its end
        chosen = Choice(**({"domid": 1, "events": events, "form": Form("jsonl")} | choice))
        pid = os.fork()
        if pid == 0:
            self._become(chosen, streams, patience)
        return Watching(pid, streams)

    def run(self, events: str, **choice: Any) -> Outcome:
        """Run ``watch`` to its end."""
        return self.start(events, **choice).finished()

    def fault(self, call: str, **spec: Any) -> None:
        """Let a call of the next session meet a fault, and no other."""
        self.simulation.control("forget-faults")
        self.simulation.control("fault", fault={"call": call, **spec})

    def assert_given_back(self) -> None:
        """Nothing is left in the guest, and every vCPU runs."""
        assert self.simulation.wait("progress", 20, timeout=DEADLINE), self._state()
        deadline = time.monotonic() + DEADLINE
        while left := self._left():  # a worker whose supervisor died may still be on its way out
            assert time.monotonic() < deadline, left
            select.select([], [], [], 0.005)

    def assert_no_rule_broken(self, *allowed: str) -> None:
        """No more rules than before were broken."""
        before, self._violations = self._violations, self.simulation.report()["violations"]
        assert [
            entry for entry in self._violations if entry not in before and entry["rule"] not in allowed
        ] == []

    def _left(self) -> list[str]:
        state = self._state()
        names = [name for name in ("ring", "armed", "restricted", "pauses", "access_required") if state[name]]
        for vcpu in state["vcpus"]:
            names += [name for name in ("single_step", "event_pauses", "waiting") if vcpu[name]]
        return names

    def _state(self) -> dict[str, Any]:
        return self.simulation.control("state")

    def _become(self, choice: Choice, streams: tuple[Any, Any], patience: float | None) -> NoReturn:
        code = 99
        gc.freeze()  # what other tests have left: libraries with threads of their own end badly in a child
        try:
            for number, stream in enumerate(streams, 1):
                os.dup2(stream.fileno(), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            os.environ.update(self.simulation.environment)
            if patience is not None:
                limits._CHANGING = limits._STUCK = patience
            library, own_domid = self._loaded

            def work(link: Link) -> int:
                with Xc(library, own_domid=own_domid) as xc:
                    watch_domain(choice, xc, link)
                return 0

            code = guarded(lambda: supervised(library, own_domid, work, guarded))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


@contextmanager
def forking(**options: Any) -> Iterator[Forker]:
    """A simulated host for many sessions; options as `Simulation` takes them."""
    with Simulation(**options) as simulation:
        yield Forker(simulation)
