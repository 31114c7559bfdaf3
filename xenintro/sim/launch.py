"""Start a simulated Xen, and talk to it: for ``--xen sim``, ``xenintro sim``, the demo and tests."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xenintro.abi import INTERFACE_IDS, interface
from xenintro.errors import NotSupportedError, UsageError, XenintroError
from xenintro.sim import scenario as scenarios
from xenintro.sim import wire
from xenintro.sim.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

MOST_VCPUS = 16

#: The release that is played for an interface version, where the caller does not name one.
RELEASES = {1: "4.7", 2: "4.10", 3: "4.11", 4: "4.12", 5: "4.13", 6: "4.14", 7: "4.17"}

#: Every library name that a client of libxc may look for; all are the one file.
_COMPANIONS = (
    "libxencall.so.1",
    "libxendevicemodel.so.1",
    "libxenevtchn.so.1",
    "libxenforeignmemory.so.1",
    "libxengnttab.so.1",
    "libxentoolcore.so.1",
    "libxentoollog.so.1",
)

_START_TIMEOUT = 20.0


class Simulation:
    """A simulated host with one guest (domain 1) and one PV guest (domain 2), until closed.

    The hypervisor is a child process: it outlives every client, and ends with the last process that
    holds this object's pipe to it.

    Args:
        vcpus: of domain 1, 1 to 16.
        abi: ``vm_event-1`` to ``vm_event-7``; ``vm_event-7-4.18`` plays another release of it.
        scenario: what the guest does: a name or a file.
        faults: see `xenintro.sim.faults`: ``{"call": "xc_monitor_cpuid", "nth": 1, "errno": "ENOMEM"}``.
        report: a file to write the report to when it closes.
        vendor: ``intel`` or ``amd``.
        pace: instructions per second and vCPU while somebody watches, instead of the scenario's.

    Attributes:
        directory: the libraries, for ``--xen DIR``.
        environment: what clients need in their environment.

    Raises:
        UsageError: no such interface, scenario, fault or number of vCPUs.
        NotSupportedError: this installation has no simulator library.
    """

    def __init__(
        self,
        vcpus: int = 1,
        abi: str = "vm_event-7",
        scenario: str = "boot",
        *,
        faults: Sequence[dict[str, Any]] = (),
        report: Path | None = None,
        vendor: str = "intel",
        pace: int | None = None,
    ) -> None:
        if not 1 <= vcpus <= MOST_VCPUS:
            raise UsageError(f"{vcpus} vCPUs", why=f"the simulated guest has 1 to {MOST_VCPUS}")
        self._abi, self._release = _interface(abi)
        scenarios.load(scenario)
        Faults(list(faults))
        self._report = report
        self._library = _library()
        self._config = {
            "abi": self._abi,
            "release": self._release,
            "vcpus": vcpus,
            "scenario": scenario if scenario in scenarios.names() else str(Path(scenario).absolute()),
            "vendor": vendor,
            "faults": list(faults),
            "pace": pace,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="xenintro-sim-"))
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a program meet this simulator."""
        path = os.environ.get("PATH", os.defpath)
        # In front: what Debian has in /usr/sbin are wrappers that look for a running Xen. At the end: this
        # xenintro, whose virtual environment need not be activated.
        own = f"/usr/lib/xen-{self._release}/bin"
        others = sorted(str(folder) for folder in Path("/usr/lib").glob("xen-*/bin"))
        tools = [own, *(folder for folder in others if folder != own)]
        return {
            "LD_LIBRARY_PATH": str(self.directory),
            "PATH": os.pathsep.join([*tools, path, str(Path(sys.executable).parent)]),
            "XENINTRO_SIM_SOCKET": str(self._socket),
            "XENINTRO_STATE_DIR": str(self.directory / "state"),
            "XENINTRO_XEN": str(self.directory),
            "XENSTORED_PATH": str(self.directory / "xenstore"),
        }

    @property
    def _socket(self) -> Path:
        return self.directory / "xen"

    def control(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Give an order (see `xenintro.sim.control`): ``state``, ``destroy``, ``crash``, ``wait``, ...

        Raises:
            XenintroError: the simulator refused it, or is gone.
        """
        order = json.dumps({"do": do, **arguments}).encode()
        try:
            answer = self._exchange(order)
        except OSError as error:
            raise XenintroError("the simulator is gone", why=str(error)) from error
        if "error" in answer:
            raise XenintroError(f"the simulator cannot {do}", why=str(answer["error"]))
        return answer

    def wait(self, what: str, count: int = 1, timeout: float = 30.0, **more: Any) -> bool:
        """Wait until ``answered``, ``events`` or ``retired`` reach a count, or the guest is ``idle``.

        Returns:
            False if it did not happen in time.
        """
        arguments = {"for": what, "count": count, "timeout": timeout, **more}
        return bool(self.control("wait", **arguments)["met"])

    def report(self) -> dict[str, Any]:
        """What has happened so far: ``events``, ``answered``, ``violations``, ``stuck_vcpus``."""
        return self.control("report")

    def close(self) -> None:
        """Write the report if one was asked for, and end the simulator."""
        process, self._process = self._process, None
        if process is not None:
            try:
                if self._report is not None and process.poll() is None:
                    self._report.write_text(json.dumps(self.report(), indent=1) + "\n")
            finally:
                self._end(process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        minor = self._release.split(".")[1]
        for name in (f"libxenctrl.so.4.{minor}", *_COMPANIONS):
            (self.directory / name).symlink_to(self._library)
        # A session of its own: the Ctrl-C that ends a client must not end its Xen.
        process = subprocess.Popen(
            [sys.executable, "-m", "xenintro.sim.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        config = {**self._config, "directory": str(self.directory)}
        process.stdin.write(json.dumps(config).encode() + b"\n")
        process.stdin.flush()
        if process.stdout.readline() != b"ready\n":
            raise XenintroError("the simulator did not start", why="see the messages above")

    def _exchange(self, order: bytes) -> dict[str, Any]:
        """One order on a connection of its own: a thread that waits holds up no other."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(self._socket))
            connection.send(wire.REQUEST.pack(b"control", os.getpid(), *[0] * 8) + order)
            packet = connection.recv(1 << 20)
        if not packet:
            raise ConnectionError("it ended")
        answer: dict[str, Any] = json.loads(packet[wire.REPLY.size :])
        return answer


def _interface(abi: str) -> tuple[str, str]:
    """The interface id and the release to play."""
    known = [name for name in INTERFACE_IDS if name.startswith("vm_event-")]
    match = re.fullmatch(r"(vm_event-(\d))(?:-(\d\.\d+))?", abi)
    if match is None or match[1] not in known:
        close = difflib.get_close_matches(abi, known, 1)
        raise UsageError(
            f"the simulator does not speak {abi!r}",
            why=f"it speaks {', '.join(known)}",
            hint=f"did you mean: --abi {close[0]}" if close else "",
        )
    release = match[3] or RELEASES[int(match[2])]
    interface(match[1], release=release)
    return match[1], release


def _library() -> Path:
    """The C library, built as an extension module that nobody imports."""
    spec = importlib.util.find_spec("xenintro.sim._client")
    if spec is None or spec.origin is None:
        raise NotSupportedError(
            "this installation of xenintro has no simulator",
            why="its C library xenintro.sim._client is missing",
            hint="install the wheel for this platform, or in a source tree: pip install -e .",
        )
    return Path(spec.origin).resolve()
