"""The shipped unit: as systemd reads it, and under a real systemd in namespaces of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.runner import COMMAND, environment
from tests.cli.simulated import simulated_host
from tests.daemon.daemon import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.simulated import Host

UNIT = Path(__file__).parents[2] / "cli" / "data" / "xenintro@.service"
CONFINED = Path(__file__).with_name("confined.sh")
SYSTEMD = next(
    (p for p in map(Path, ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")) if p.exists()), None
)
TARGETS = ("sysinit.target", "basic.target", "shutdown.target", "multi-user.target")

needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")


def derived(directory: Path, **changes: str) -> Path:
    """The shipped unit with some texts replaced."""
    text = UNIT.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = directory / UNIT.name
    path.write_text(text)
    return path


@needs_analyze
def test_unit_is_valid(tmp_path: Path) -> None:
    derived(tmp_path, **{"/usr/bin/xenintro": shutil.which("true") or "/bin/true"})
    instance = tmp_path / "xenintro@win10.service"
    instance.symlink_to(UNIT.name)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(instance)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_names_the_program_that_printed_it() -> None:
    program = Path(sys.executable).with_name("xenintro")
    printed = subprocess.run([program, "serve", "--print-unit"], capture_output=True, text=True, check=True)
    assert printed.stdout == UNIT.read_text().replace("/usr/bin/xenintro", str(program))
    assert f"\nExecStopPost={program} rescue " in printed.stdout


@needs_analyze
def test_unit_is_hardened() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:]


class Systemd:
    """A running one with the service's unit."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.log = directory / "log"
        self.config = directory / "tiny.toml"
        self.config.write_text(CONFIG)
        units = directory / "units"
        units.mkdir()
        for target in TARGETS:
            shutil.copy(f"/usr/lib/systemd/system/{target}", units)
        variables = "".join(f'Environment="{k}={v}"\n' for k, v in host.simulation.environment.items())
        derived(
            units,
            **{
                "/usr/bin/xenintro": " ".join(COMMAND),
                "/etc/xenintro": str(directory),
                "ConditionPathExists=/proc/xen/capabilities\n": "",
                "ConfigurationDirectory=xenintro\n": "",
                "ProtectHome=yes": "ProtectHome=read-only",  # where the interpreter may be
                "PrivateTmp=yes\n": f"StandardError=append:{self.log}\n{variables}",
                "ReadWritePaths=-/var": f"ReadWritePaths={directory} {host.simulation.directory} -/var",
                "RestartSec=2s": "RestartSec=200ms",
            },
        )
        writable = [str(directory), str(host.simulation.directory)]
        self._process = subprocess.Popen(
            [
                "sh",
                str(CONFINED),
                *writable,
                "--",
                str(SYSTEMD),
                "--unit=multi-user.target",
                "--show-status=no",
                "--log-target=console",
            ],
            env=environment(SYSTEMD_UNIT_PATH=str(units), container="xenintro-test"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.pid = self._first()

    def _first(self) -> int:
        """Process 1 of the namespaces, once it is systemd and answers."""
        until = monotonic() + 20
        while monotonic() < until:
            if self._process.poll() is not None:
                assert self._process.stdout is not None
                pytest.skip(f"no systemd here: {self._process.stdout.read().decode()[-300:]}")
            for pid in _descendants(self._process.pid):
                if _name(pid) == "systemd":
                    self.pid = pid
                    if self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                        return pid
            sleep(0.05)
        raise AssertionError("systemd does not come up")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command where systemd is."""
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--", *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def systemctl(self, *args: str) -> str:
        done = self.run("systemctl", *args)
        assert done.returncode == 0, (
            f"{done.stderr}\n{self.log.read_text()[-2000:] if self.log.exists() else ''}"
        )
        return done.stdout

    def show(self) -> dict[str, str]:
        """Properties of the service."""
        names = "ActiveState,SubState,StatusText,MainPID,NRestarts,Result,ExecMainStatus"
        lines = self.systemctl("show", "xenintro@tiny", "-p", names).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def status(self) -> dict[str, Any]:
        """What `ctl status` says."""
        done = self.run(*COMMAND, "ctl", "status", "--name", "tiny", "--format", "jsonl")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def eventually(self, wanted: Callable[[], bool]) -> None:
        until = monotonic() + 30
        while not wanted():
            assert monotonic() < until, f"{self.show()}\n{self.log.read_text()[-2000:]}"
            sleep(0.05)

    def assert_watched(self) -> None:
        """The service is up, the guest runs, and its events are seen."""
        self.eventually(
            lambda: self.show()["SubState"] == "running" and self.status().get("state") == "watching"
        )
        seen = self.status()["events"]
        self.eventually(lambda: self.status()["events"] > seen)
        self.assert_runs()

    def assert_runs(self) -> None:
        """Every vCPU makes progress."""
        assert self.host.simulation.wait("progress", 100, timeout=20)

    def close(self) -> None:
        os.kill(self.pid, 9)
        self._process.communicate(timeout=30)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    if SYSTEMD is None or os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs systemd, root and unshare")
    with simulated_host(vcpus=2) as host:
        running = Systemd(host, tmp_path)
        try:
            yield running
        finally:
            running.close()


@pytest.mark.slow
def test_under_systemd(systemd: Systemd) -> None:
    systemd.systemctl("start", "xenintro@tiny")
    assert systemd.status()["state"] == "watching", "started means being watched"
    systemd.eventually(
        lambda: bool(re.fullmatch(r"watching tiny \(domid 1\): \d+/s, p99 .*", systemd.show()["StatusText"]))
    )

    systemd.config.write_text(CONFIG + "int3 = true\n")
    systemd.systemctl("reload", "xenintro@tiny")
    systemd.eventually(lambda: systemd.status()["traps"] == ["cr3", "cpuid", "int3"])
    systemd.assert_watched()

    for number, whom in enumerate(("worker", "main", "all"), 1):
        if whom == "worker":
            assert systemd.run("kill", "-KILL", str(systemd.status()["pid"])).returncode == 0
        else:
            systemd.systemctl("kill", f"--kill-whom={whom}", "--signal=KILL", "xenintro@tiny")
        systemd.eventually(lambda count=number: systemd.show()["NRestarts"] == str(count))
        systemd.assert_watched()

    systemd.systemctl("stop", "xenintro@tiny")
    assert systemd.show()["ActiveState"] == "inactive"
    assert systemd.host.simulation.control("state")["ring"] is False
    systemd.assert_runs()

    systemd.config.write_text(CONFIG + "mrs = 1\n")
    assert systemd.run("systemctl", "start", "xenintro@tiny").returncode != 0
    shown = systemd.show()
    assert (shown["ActiveState"], shown["ExecMainStatus"]) == ("failed", "2"), "no restart helps"


def _descendants(pid: int) -> list[int]:
    found = []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    for child in map(int, children):
        found += [child, *_descendants(child)]
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
