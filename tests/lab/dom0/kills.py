"""Runs in dom0: `xenintro watch`, over and over, its processes killed at random instants.

Each turn forks from this process, which has everything imported: Python's start would take most of the
time, and be where most kills land. Whether the guest runs is read from the guest's own counters.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import xenintro.xen.rescue
import xenintro.xen.xc
from xenintro.xen.domains import domain_info
from xenintro.xen.preflight import ring_in_use
from xenintro.xen.statedir import state_directory
from xenintro.xen.xc import Xc, libraries_of
from xenintro_cli.__main__ import run

for verb in ("watch", "rescue"):
    __import__(f"xenintro_cli.{verb}")
for part in ("monitor", "keeper"):
    __import__(f"xenintro.xen.{part}")

#: Seconds after which a guest that does not run is lost.
_PATIENCE = 60.0
#: Seconds between looks: dom0 has one CPU, which the watched guest needs too.
_LOOK = 0.01
_OUT, _ERR = Path("/tmp/kills.out"), Path("/tmp/kills.err")


class Progress:
    """How often each vCPU has gone through the guest's words, from the guest's memory."""

    def __init__(self, domid: int, address: int, vcpus: int) -> None:
        library = ctypes.CDLL("libxenforeignmemory.so.1", use_errno=True)
        library.xenforeignmemory_open.restype = ctypes.c_void_p
        library.xenforeignmemory_map.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(library.xenforeignmemory_open(None, 0))
        gfn, error = (ctypes.c_uint64 * 1)(address >> 12), (ctypes.c_int * 1)()
        base = library.xenforeignmemory_map(handle, domid, 1, ctypes.c_size_t(1), gfn, error)
        if not base or error[0]:
            raise OSError(ctypes.get_errno(), "the guest's memory cannot be mapped")
        self._counters = (ctypes.c_uint32 * vcpus).from_address(base)

    def now(self) -> list[int]:
        """The passes of each vCPU."""
        return list(self._counters)

    def standing(self, before: list[int]) -> list[int]:
        """The vCPUs that have not gone through all of the words since."""
        pairs = enumerate(zip(self.now(), before, strict=True))
        return [vcpu_id for vcpu_id, (now, then) in pairs if now - then < 2]


class Turn:
    """One `xenintro watch`, from before it attaches until after it has let go."""

    def __init__(self, domid: int, events: str) -> None:
        self.asked_to_end = False
        self.front = forked(["watch", "--domid", str(domid), "-e", events, "--format", "jsonl"])

    def end(self) -> None:
        """Ctrl-C."""
        self.asked_to_end = True
        os.kill(self.front, signal.SIGINT)

    def phase(self) -> str:
        """What it is doing."""
        if self.asked_to_end:
            return "teardown"
        if _ERR.stat().st_size:  # it says that it watches
            return "watch"
        return "attach" if _journals() else "before"

    def supervisor(self) -> int:
        """Its process, 0 if there is none."""
        return _child(self.front)

    def worker(self) -> int:
        """Its process, 0 if there is none."""
        supervisor = self.supervisor()
        return _child(supervisor) if supervisor else 0

    def kill(self, victim: str) -> None:
        """SIGKILL to the worker, the supervisor, the job (the front's process group), or to all at once."""
        worker, supervisor = self.worker(), self.supervisor()
        targets = {
            "worker": [worker],
            "supervisor": [supervisor],
            "job": [-self.front],
            # The worker last: the supervisor would rescue its guest.
            "all": [self.front, supervisor, worker],
        }[victim]
        for pid in filter(None, targets):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def forked(arguments: list[str]) -> int:
    """The command `xenintro` in a process of its own, in its own process group."""
    _ERR.write_text("")
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in enumerate((Path(os.devnull), _OUT, _ERR)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os._exit(run(arguments))


def _journals() -> list[Path]:
    try:
        return list(state_directory().iterdir())
    except FileNotFoundError:
        return []


def _child(pid: int) -> int:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0


def until(condition: Callable[[], object], seconds: float = _PATIENCE) -> bool:
    """Wait for a condition, closely; False if it never came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True


class Kills:
    """Kills on one guest."""

    def __init__(self, asked: dict[str, object]) -> None:
        self._domid, self._events = int(str(asked["domid"])), str(asked["events"])
        self._progress = Progress(self._domid, int(str(asked["address"])), int(str(asked["vcpus"])))
        self._random = random.Random(str(asked["seed"]))
        self._xc = Xc(*libraries_of("auto"))
        self._attaching, self._releasing = 0.1, 0.1

    def measure(self) -> None:
        """How long attaching and letting go take when nobody is killed."""
        turn = Turn(self._domid, self._events)
        until(lambda: turn.phase() != "before")
        started = time.monotonic()
        until(lambda: turn.phase() == "watch")
        self._attaching = time.monotonic() - started
        turn.end()
        started = time.monotonic()
        status = os.waitpid(turn.front, 0)[1]
        self._releasing = time.monotonic() - started
        if status:
            raise RuntimeError(f"watch ended with {status:#x}: {_ERR.read_text()}")

    def turns(self, victims: list[str]) -> Iterator[dict[str, object]]:
        """One kill each, until a guest is lost; a turn that ended before its kill is done again."""
        phases = ("attach", "watch", "teardown")
        for index, victim in enumerate(victims):
            while not (kill := self._turn(victim, phases[index % len(phases)])):
                pass
            yield kill
            if kill["lost"]:
                return

    def _turn(self, victim: str, aim: str) -> dict[str, object] | None:
        turn = Turn(self._domid, self._events)
        self._wait_for(turn, aim)
        phase, before, killed = turn.phase(), self._progress.now(), time.monotonic()
        missed = not turn.worker()
        turn.kill(victim)
        if victim == "all":
            os.waitpid(turn.front, 0)
            turn.front = forked(["rescue", "--domid", str(self._domid)])
        runs = until(lambda: not self._progress.standing(before))
        seconds = time.monotonic() - killed
        status = os.waitstatus_to_exitcode(os.waitpid(turn.front, 0)[1])
        until(lambda: not self._left(), 10)
        lost = [*([] if runs else [f"standing {self._progress.standing(before)}"]), *self._left()]
        if missed and status and victim == "worker":  # nobody was killed
            raise RuntimeError(f"watch ended with {status}: {_ERR.read_text()}")
        if missed and not lost:
            return None
        said = _ERR.read_text()
        kill = {"victim": victim, "phase": phase, "seconds": seconds, "lost": lost, "status": status}
        return {**kill, "said": said}

    def _wait_for(self, turn: Turn, aim: str) -> None:
        """Until a random instant of a phase."""
        until(lambda: turn.phase() != "before")
        if aim == "attach":
            time.sleep(self._random.uniform(0, self._attaching))
            return
        until(lambda: turn.phase() == "watch")
        time.sleep(self._random.uniform(0, 0.2))
        if aim == "teardown":
            turn.end()
            time.sleep(self._random.uniform(0, self._releasing))

    def _left(self) -> list[str]:
        """What a dead watcher has left in the domain."""
        paused = domain_info(self._xc, self._domid, named=False).paused
        found = {"pause": paused, "ring": ring_in_use(self._xc, self._domid), "journal": _journals()}
        return [what for what, there in found.items() if there]


def main(request: str) -> None:
    """Do what the JSON request asks for; a line for each kill."""
    asked = json.loads(request)
    # As `xenintro watch` does it, without reading the libraries' declarations each time.
    xenintro.xen.xc.libraries_of = functools.cache(libraries_of)
    xenintro.xen.xc.libraries_of("auto")
    kills = Kills(asked)
    kills.measure()
    for kill in kills.turns(asked["victims"]):
        print(json.dumps(kill), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
