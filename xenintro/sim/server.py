"""The process that plays Xen: sockets on one side, the machine on the other."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenintro.abi import interface
from xenintro.errors import UsageError
from xenintro.sim import calls_domain, calls_monitor, control, scenario, wire, xenstore
from xenintro.sim.calls import Client, perform
from xenintro.sim.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.sim.faults import Fault

# Importing them registers their handlers.
_ = (calls_domain, calls_monitor)

#: Seconds between two looks at who still maps pages of dying domains.
_SWEEP = 0.1
#: Seconds after which a page still mapped is a broken rule: clients look at least once a second.
_TOO_LONG = 3.0


class Server:
    """Serves clients until its standard input is closed.

    Args:
        machine: the simulated host.
        directory: where the sockets are made: ``xen`` and ``xenstore``.
    """

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], object]] = {}
        self._stopping = False
        self._waiting: list[tuple[control.Condition, float, socket.socket]] = []
        self._next_sweep = 0.0
        self._dead_since: dict[int, float] = {}
        self.xenstore = xenstore.Xenstore(machine)
        self._listen(directory / "xen", socket.SOCK_SEQPACKET, self._accept)
        self._listen(directory / "xenstore", socket.SOCK_STREAM, self._accept_xenstore)
        self._watch(sys.stdin.fileno(), self._stdin)

    def run(self) -> None:
        """Serve."""
        while not self._stopping:
            wait = self.machine.turn()
            self.xenstore.look()
            if self._waiting:
                wait = self._tell_waiting(wait)
            if self._dead_since or any(d.dying for d in self.machine.domains.values()):
                wait = self._sweep(wait)
            for fd, _event in self._epoll.poll(-1 if wait is None else wait):
                ready = self._ready.get(fd)
                if ready is not None:  # closed by one before it in this round
                    ready()

    # Connections.

    def _watch(self, fd: int, ready: Callable[[], object]) -> None:
        self._ready[fd] = ready
        self._epoll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(fd)

    def _listen(self, path: Path, kind: int, accept: Callable[[socket.socket], None]) -> None:
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(str(path))
        listener.listen(64)
        self._watch(listener.fileno(), lambda: accept(listener))

    def _stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            self._stopping = True

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        client = Client(self.machine)
        self._watch(connection.fileno(), lambda: self._serve(connection, client))

    def _accept_xenstore(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        session = self.xenstore.open(connection)

        def ready() -> None:
            if not session.serve():
                self._forget(connection.fileno())
                self.xenstore.close(session)

        self._watch(connection.fileno(), ready)

    def _serve(self, connection: socket.socket, client: Client) -> None:
        try:
            packet = connection.recv(wire.LONGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:  # meant for the descriptor's owner before it
            return
        except OSError:
            packet = b""
        if len(packet) < wire.REQUEST.size:
            self._close(connection, client)
            return
        name, client.pid, arguments, data = wire.parse(packet)
        self.machine.caller = client.pid
        if name == "control":
            self._control(connection, json.loads(data))
            return
        answered = self._call(connection, client, name, arguments, data)
        if name == "xenevtchn_open" and client.device is not None:
            self._watch(client.device.near.fileno(), client.device.serve)
        if answered and name.endswith("_close"):
            self._close(connection, client)

    def _call(
        self,
        connection: socket.socket,
        client: Client,
        name: str,
        arguments: tuple[int, ...],
        data: bytes,
    ) -> bool:
        """Do one call; False if its caller never hears of it: it was killed, or hangs."""
        fault = self.machine.faults.meets(name)
        if fault is not None and not fault.after and self._strikes(client, fault):
            return False
        answer = wire.Result(-1)
        error = 0
        if fault is not None and not fault.after and fault.action == "fail":
            error = fault.errno
        else:
            try:
                answer = perform(client, name, arguments, data)
            except OSError as refused:
                error = refused.errno or 0
        if fault is not None and fault.after:
            if self._strikes(client, fault):
                return False
            if fault.action == "fail" and not error:
                answer, error = wire.Result(-1, answer.out), fault.errno
        wire.send(connection, answer, error)
        return True

    def _strikes(self, client: Client, fault: Fault) -> bool:
        """Kill or disaster; whether the call gets no answer."""
        if fault.action == "kill-client":
            os.kill(client.pid, signal.SIGKILL)
        elif fault.action == "order":
            control.obey(self.machine, fault.order)
        return fault.action in ("kill-client", "hang")

    def _close(self, connection: socket.socket, client: Client) -> None:
        self._forget(connection.fileno())
        connection.close()
        if client.device is not None:
            self._forget(client.device.near.fileno())
            client.device.close()
            client.device = None

    # Control, used by whoever started the simulator.

    def _control(self, connection: socket.socket, order: dict[str, Any]) -> None:
        try:
            if order["do"] == "wait":
                condition = control.condition(self.machine, order)
                deadline = time.monotonic() + float(order.get("timeout", 30))
                self._waiting.append((condition, deadline, connection))
                return
            answer = control.obey(self.machine, order)
        except (KeyError, TypeError, ValueError, OSError, UsageError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        wire.send(connection, wire.Result(0, json.dumps(answer).encode()))

    def _tell_waiting(self, wait: float | None) -> float | None:
        now = time.monotonic()
        for entry in list(self._waiting):
            condition, deadline, connection = entry
            met = condition()
            if met or now >= deadline:
                self._waiting.remove(entry)
                wire.send(connection, wire.Result(0, json.dumps({"met": met}).encode()))
            else:
                left = deadline - now
                wait = left if wait is None else min(wait, left)
        return wait

    def _sweep(self, wait: float | None) -> float:
        """Free dying domains of which nobody maps a page any more."""
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP
            for domain in [d for d in self.machine.domains.values() if d.dying]:
                since = self._dead_since.setdefault(domain.domid, now)
                if not domain.pages.mapped():
                    del self._dead_since[domain.domid]
                    self.machine.forget(domain)
                elif since <= now - _TOO_LONG:
                    self._dead_since[domain.domid] = now + 1e9
                    self.machine.rules.broke("page-kept", f"domain {domain.domid}")
        return _SWEEP if wait is None else min(wait, _SWEEP)


def main() -> None:
    """Read the configuration from the first line of standard input, and serve until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = json.loads(_first_line())
    machine = Machine(
        interface(config["abi"], release=config["release"]),
        _paced(scenario.load(config["scenario"]), config["pace"]),
        vcpus=config["vcpus"],
        vendor=config["vendor"],
        faults=config["faults"],
    )
    server = Server(machine, Path(config["directory"]))
    # Who started this may have gone already: the closed stdin then ends it at once.
    with contextlib.suppress(BrokenPipeError):
        print("ready", flush=True)
    server.run()
    # Whoever started this may have been killed: nobody else removes it then.
    shutil.rmtree(config["directory"], ignore_errors=True)
    os._exit(0)  # the rest is not worth the time to take apart


def _paced(loaded: scenario.Scenario, pace: int | None) -> scenario.Scenario:
    return loaded if pace is None else loaded._replace(pace=pace)


def _first_line() -> bytes:
    """Byte by byte: what follows is watched as a descriptor, not through a buffer."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(sys.stdin.fileno(), 1)
    return line


if __name__ == "__main__":
    main()
