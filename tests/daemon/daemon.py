"""``xenintro serve`` on a simulated Xen, with a service manager that listens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from tests.cli.runner import COMMAND, TIMEOUT, Outcome, environment
from tests.cli.simulated import finished, simulated_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.simulated import Host

NAME = "tiny"
CONFIG = '[domain]\nname = "tiny"\n[traps]\ncr3 = true\ncpuid = true\n'


class Manager:
    """The notify socket of a service manager: every message with its time."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.messages: list[tuple[float, dict[str, str]]] = []

    def wait(self, wanted: Callable[[dict[str, str]], bool], seconds: float = 20.0) -> dict[str, str]:
        """The next message that fits; those before it are kept too."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                text = self._socket.recv(4096).decode()
            except TimeoutError:
                break
            message = dict(line.split("=", 1) for line in text.splitlines())
            self.messages.append((monotonic(), message))
            if wanted(message):
                return message
        raise AssertionError(f"never told; last were {[message for _, message in self.messages[-5:]]}")

    def wait_for(self, key: str, value: str = "", seconds: float = 20.0) -> dict[str, str]:
        """The next message with a line that starts so."""
        return self.wait(lambda message: key in message and message[key].startswith(value), seconds)

    def collect(self, seconds: float) -> list[dict[str, str]]:
        """What is told within a time."""
        start = len(self.messages)
        with suppress(AssertionError):
            self.wait(lambda _: False, seconds)
        return [message for _, message in self.messages[start:]]

    def close(self) -> None:
        self._socket.close()


class Daemon:
    """A running service."""

    def __init__(
        self, host: Host, directory: Path, config: str, *, watchdog: float, address: str = ""
    ) -> None:
        self.host = host
        self.directory = directory
        self.config = directory / "tiny.toml"
        self.config.write_text(config)
        self.manager = Manager(address or str(directory / "notify"))
        self.environment = environment(
            **host.simulation.environment,
            XENINTRO_RUNTIME_DIR=str(directory / "run"),
            NOTIFY_SOCKET=self.manager.address,
            WATCHDOG_USEC=str(int(watchdog * 1e6)),
        )
        self.process = self._start("serve", "--config", str(self.config))

    def _start(self, *args: str, **streams: Any) -> subprocess.Popen[bytes]:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        return subprocess.Popen([*COMMAND, *args], stdin=subprocess.DEVNULL, env=self.environment, **streams)

    def ready(self) -> None:
        self.manager.wait_for("READY")

    def fault(self, call: str, *numbers: int) -> None:
        """These calls from now on fail."""
        for number in numbers:
            fault = {"call": call, "nth": number, "errno": "EIO"}
            self.host.simulation.control("fault", fault=fault)

    def ctl(self, *args: str) -> Outcome:
        """A control verb for this service, to its end."""
        with self._start("ctl", args[0], "--name", NAME, *args[1:]) as process:
            return finished(process)

    def ask(self, *args: str) -> dict[str, Any]:
        """What a control verb answers."""
        outcome = self.ctl(*args, "--format", "jsonl")
        assert outcome.code == 0, outcome.stderr
        answer: dict[str, Any] = json.loads(outcome.stdout)
        return answer

    def eventually(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 20.0) -> dict[str, Any]:
        """The status as soon as it is as wanted."""
        until = monotonic() + seconds
        while monotonic() < until:
            status = self.ask("status")
            if wanted(status):
                return status
        raise AssertionError(f"it stays {status}")

    def eventually_stats(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The statistics as soon as they are as wanted."""
        until = monotonic() + TIMEOUT
        while monotonic() < until:
            stats = self.ask("stats")
            if wanted(stats):
                return stats
        raise AssertionError(f"they stay {stats}")

    def connect(self) -> socket.socket:
        """A client of the control socket."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT)
        connection.connect(str(self.directory / "run" / NAME / "control.sock"))
        return connection

    @contextmanager
    def tail(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """A reader of the events, once the service knows it; call it for all lines when the service ended."""
        before = self.ask("status")["tails"]
        path = self.directory / "tail.jsonl"
        with path.open("wb") as file, self._start("ctl", "tail", "--name", NAME, stdout=file) as process:
            self.eventually(lambda status: status["tails"] > before)

            def lines() -> list[dict[str, Any]]:
                assert finished(process).code == 0
                return [json.loads(line) for line in path.read_bytes().splitlines()]

            yield lines

    def reload(self) -> None:
        """SIGHUP; returns when the service says that it has reloaded, or not."""
        self.process.send_signal(signal.SIGHUP)
        self.manager.wait_for("RELOADING")
        self.manager.wait_for("READY")

    def stop(self) -> Outcome:
        """SIGTERM, to the end."""
        self.process.send_signal(signal.SIGTERM)
        return finished(self.process)

    def assert_runs(self) -> None:
        """The guest runs, whatever was done to who watched it."""
        simulation = self.host.simulation
        assert simulation.report()["stuck_vcpus"] == []
        assert simulation.wait("progress", 100, timeout=20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        if self.process.stdout is not None and not self.process.stdout.closed:
            finished(self.process)
        self.manager.close()


@contextmanager
def daemon(
    directory: Path, config: str = CONFIG, *, watchdog: float = 2.0, address: str = "", **options: Any
) -> Iterator[Daemon]:
    """A service on a fresh simulated Xen."""
    with simulated_host(**options) as host:
        running = Daemon(host, directory, config, watchdog=watchdog, address=address)
        try:
            yield running
        finally:
            running.close()


def worker_of(pid: int) -> int:
    """The process that runs the loop: the child of the child."""
    for _ in range(2):
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123
            pid = int(file.read().split()[0])
    os.kill(pid, 0)
    return pid
