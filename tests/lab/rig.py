"""One booted lab: run a command in dom0, read Xen's console, end it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import select
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.lab import cache, host, image
from tests.lab.console import Console
from tests.lab.machine import MODELS, Files, Machine
from tests.lab.releases import DEFAULT, RELEASES


@dataclass(frozen=True)
class Result:
    """How something in dom0 ended, and what it printed (a script's stderr is in its output)."""

    status: int
    output: str
    errors: str = ""


class ScriptFailed(AssertionError):
    """A script in dom0 ended with another status than 0."""


#: start-stop-daemon, because a shell's own background jobs ignore SIGINT.
_JOB = """\
mkdir -p {home}
cat > {home}/script <<'END_OF_JOB'
cd /root
sh -c 'echo $$ > {home}/pid; exec {command}' > {home}/out 2> {home}/err < /dev/null
echo $? > {home}/status
END_OF_JOB
start-stop-daemon -S -b -p {home}/daemon -a /bin/sh -- {home}/script
"""


class Job:
    """A command that runs in dom0 beside the others."""

    def __init__(self, rig: Rig, name: str, command: str) -> None:
        self._rig, self._home = rig, f"/tmp/jobs/{name}"
        rig.run(_JOB.format(home=self._home, command=command))

    def wait(self, condition: str, timeout: int = 60) -> None:
        """Wait until a shell condition holds in the job's directory; an error if the job ends before."""
        poll = f"until {{ {condition}; }} || [ -s status ]; do usleep 20000; done; {condition}"
        if self._rig.run(f"cd {self._home}; {poll}", timeout, check=False).status:
            raise ScriptFailed(f"never {condition!r}; the job: {self.finish('KILL')}")

    def finish(self, signal: str | None = "INT", timeout: int = 60) -> Result:
        """Send a signal (or none: the job ends by itself) and give back how it ended."""
        send = f"[ -s status ] || kill -{signal} $(cat pid);" if signal else ""
        show = "cat status; wc -c < out; cat out err"
        ended = self._rig.run(
            f"cd {self._home}; {send} until [ -s status ]; do usleep 20000; done; {show}", timeout
        )
        status, size, both = ended.output.split("\n", 2)
        data = both.encode()
        return Result(int(status), data[: int(size)].decode(), data[int(size) :].decode())


class Rig:
    """A booted dom0 of one CPU and one Xen. Only one runs at a time on a host."""

    def __init__(
        self, cpu: str = "vmx", xen: str = DEFAULT, payload: Path | None = None, cpus: int = 1
    ) -> None:
        self.cpu, self.release = cpu, RELEASES[xen]
        self._ids = itertools.count(1)
        self._pending = b""
        self._undo = contextlib.ExitStack()
        started = time.monotonic()
        with contextlib.ExitStack() as undo:
            host.provide(cpu)
            parts = image.image(self.release)
            undo.enter_context(cache.lock("emulator"))
            # The lock is ours: what stands here is what a killed run has left.
            shutil.rmtree(cache.root() / "run", ignore_errors=True)
            self.run_dir = cache.root() / "run"
            self.run_dir.mkdir()
            undo.callback(shutil.rmtree, self.run_dir, ignore_errors=True)
            initramfs = self.run_dir / "initramfs"
            with initramfs.open("wb") as joined:
                # The kernel unpacks archives that follow one another, later files over earlier.
                for path in (parts.initramfs, *([payload] if payload else [])):
                    joined.write(path.read_bytes())
            model = MODELS[cpu]
            self.machine = Machine(model, Files(parts, initramfs, self.run_dir, cpus))
            undo.callback(self.machine.close)
            self.console = Console(self.machine, self.run_dir / "console.log")
            self.console.wait("lab: dom0 up", timeout=model.boot_seconds)
            self._answer("0", 60)
            self._undo = undo.pop_all()
        self.boot_seconds = time.monotonic() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the emulator and remove what belonged to this boot."""
        self._undo.close()

    def run(self, script: str, timeout: int = 60, *, check: bool = True) -> Result:
        """Run a shell script in dom0, which kills it after `timeout` of its own seconds."""
        packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
        for _ in range(3):
            ident = str(next(self._ids))
            self.machine.agent.sendall(f"{ident} {timeout} {packed}\n".encode())
            # The emulated clock may be several times slower than the host's.
            status, output = self._answer(ident, timeout * 10 + 60)
            if status != "garbled":
                break
        text = gzip.decompress(base64.b64decode(output)).decode(errors="replace")
        result = Result(int(status), text)
        if check and result.status:
            raise ScriptFailed(f"status {result.status} from:\n{script}\n{text}")
        return result

    def put(self, path: str, text: str) -> None:
        """Write a file in dom0."""
        self.run(f"cat > {path} <<'END_OF_FILE'\n{text}\nEND_OF_FILE")

    def get(self, path: str) -> bytes:
        """Read a file of dom0."""
        return base64.b64decode(self.run(f"base64 {path}").output)

    def start(self, command: str) -> Job:
        """Start a command (without single quotes) that runs on beside what comes next."""
        return Job(self, str(next(self._ids)), command)

    def _answer(self, ident: str, timeout: float) -> tuple[str, str]:
        """Status and output of the request with this id."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.machine.alive():
            *lines, self._pending = self._pending.split(b"\n")
            for line in lines:
                words = line.decode("latin-1").split()
                if len(words) == 3 and words[0] == ident:
                    return words[1], words[2]
            if select.select([self.machine.agent], [], [], 1)[0]:
                self._pending += self.machine.agent.recv(65536)
        raise TimeoutError(f"no answer from dom0; console:\n{self.console.since(0)[-1500:]}")
