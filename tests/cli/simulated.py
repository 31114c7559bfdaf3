"""A simulated Xen that several commands meet, and commands that run while the test goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.cli.runner import COMMAND, TIMEOUT, Outcome, environment
from xenintro.sim.launch import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator


class Host:
    """A simulation with the command line on it."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation

    def start(self, *args: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Start a command; its streams are pipes unless told otherwise."""
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*COMMAND, *args],
            stdin=subprocess.DEVNULL,
            env=environment(**self.simulation.environment),
            **(streams | popen),
        )

    def run(self, *args: str) -> Outcome:
        """Run a command to its end."""
        with self.start(*args) as process:
            return finished(process)

    def assert_untouched(self) -> None:
        """No rule was broken, every request answered, and the guest runs on."""
        report = self.simulation.report()
        assert report["violations"] == []
        assert report["stuck_vcpus"] == []
        assert report["answered"] == report["events"]
        assert self.simulation.wait("progress", 100, timeout=20), "the guest does not run"

    def retired(self) -> list[int]:
        """Instructions that each vCPU has executed."""
        return [vcpu["retired"] for vcpu in self.simulation.control("state")["vcpus"]]


def finished(process: subprocess.Popen[bytes]) -> Outcome:
    """Wait for a command's end."""
    stdout, stderr = process.communicate(timeout=TIMEOUT)
    return Outcome(process.returncode, (stdout or b"").decode(), (stderr or b"").decode())


def interrupted(process: subprocess.Popen[bytes], number: int = signal.SIGINT) -> Outcome:
    """Send a signal and wait for the end."""
    os.kill(process.pid, number)
    return finished(process)


@contextmanager
def simulated_host(**options: Any) -> Iterator[Host]:
    """A fresh simulated Xen; options as `Simulation` takes them."""
    with Simulation(**options) as simulation:
        yield Host(simulation)
