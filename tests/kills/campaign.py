"""Kills a watching process at a random instant, over and over, and looks at the guest each time.

Every turn forks from this process, which has everything imported, and does what the command ``watch`` does.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import xenintro.policy
import xenintro.session
import xenintro.xen.monitor  # noqa: F401 - what a worker imports is there before the fork
from xenintro.sim.launch import Simulation
from xenintro.supervise.front import supervised
from xenintro.xen.process import adopt_orphans
from xenintro.xen.xc import Xc, libraries_of
from xenintro_cli.ending import guarded
from xenintro_cli.output import Form
from xenintro_cli.watch import Choice, watch_domain

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.supervise.link import Link

VCPUS = (1, 2, 8, 12)
EVENTS = "cr3,cpuid,msr:lstar,int3,guest-request,mem:w@0x400-0xbff:step"
_WATCHED = 0.03
#: Kills on one simulated host, until the next number of vCPUs has its turn.
_BLOCK = 20
#: Seconds after which a guest that does not run is lost.
PATIENCE = 20.0
_POLICY = """
from xenintro.response import Response
from xenintro.events import Cpuid
def decide(event, guest):
    return Response.allow(event) if isinstance(event, Cpuid) else None
"""


class Kill(NamedTuple):
    """One turn.

    Attributes:
        victim: ``worker``, ``supervisor``, ``front`` or ``job`` (the front's process group).
        lost: why the guest counts as lost; empty if it runs as before.
        seconds: from the kill until every vCPU had run again.
    """

    vcpus: int
    victim: str
    lost: str
    seconds: float


class Campaign:
    """Turns on one simulated host.

    Args:
        vcpus: of the guest.
        seed: of the random instants: from before the attachment to after the release.

    Attributes:
        random: of the instants.
        simulation: the host.
        pids: the processes of the last turn by name, as far as there were any when it was time to kill.
    """

    def __init__(self, vcpus: int, seed: int) -> None:
        self._vcpus = vcpus
        self.random = random.Random(seed)
        self.simulation = Simulation(vcpus=vcpus, scenario="storm")
        os.environ.update(self.simulation.environment)
        adopt_orphans()
        self._simulator = set(_children(os.getpid()))
        self._library, self._own_domid = libraries_of(str(self.simulation.directory))
        self._policy = Path(tempfile.mkdtemp()) / "policy.py"
        self._policy.write_text(_POLICY)
        self.pids: dict[str, int] = {}

    def close(self) -> None:
        """End the simulation."""
        self.simulation.close()
        self._policy.unlink()
        self._policy.parent.rmdir()

    def turn(self, victim: str) -> Kill:
        """Watch, kill, and see whether the guest runs."""
        wait = self.instant()
        front = self.start()
        wait()
        killed = time.monotonic()
        self.pids = _kill(front, victim)
        before = self._retired()
        lost, seconds = self._lost(before, killed)
        self.wait_for_all()
        return Kill(self._vcpus, victim, lost or self._left(), seconds)

    def instant(self) -> Callable[[], object]:
        """Waits, once the processes have been started, until it is time to kill."""
        seconds = self.random.uniform(0, self.lifetime)
        return lambda: time.sleep(seconds)

    @cached_property
    def lifetime(self) -> float:
        """Seconds from start to end of a turn without a kill, and a bit."""
        times = []
        for _ in range(5):
            started = time.monotonic()
            self.start()
            self.wait_for_all()
            times.append(time.monotonic() - started)
        return 1.05 * sorted(times)[2]

    def start(self) -> int:
        """Start the processes of a turn; the front's."""
        choice = self.choice()
        front = os.fork()
        if front == 0:
            self._watch(choice)
        return front

    def choice(self) -> Choice:
        """What the command line would ask for."""
        return Choice(
            domid=1,
            events=EVENTS,
            duration=_WATCHED,
            quiet=True,
            form=Form(format="jsonl"),
            policies=(str(self._policy),) if self.random.random() < 0.5 else (),
            enforce=True,
        )

    def wait_for_all(self) -> None:
        """Until every process of the turn has ended; all are ours, orphans too."""
        while others := set(_children(os.getpid())) - self._simulator:
            for pid in others:
                os.waitpid(pid, 0)

    def _watch(self, choice: Choice) -> NoReturn:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)

        def work(link: Link) -> int:
            with Xc(self._library, own_domid=self._own_domid) as xc:
                watch_domain(choice, xc, link)
            return 0

        os._exit(guarded(lambda: supervised(self._library, self._own_domid, work, guarded)))

    def _retired(self) -> list[int]:
        return [vcpu["retired"] for vcpu in self._state()["vcpus"]]

    def _state(self) -> dict[str, Any]:
        return self.simulation.control("state")

    def _lost(self, before: list[int], killed: float) -> tuple[str, float]:
        """Why the guest is lost, empty if every vCPU has run again; and how long that took."""
        while True:
            state = self._state()
            seconds = time.monotonic() - killed
            if all(vcpu["retired"] > count for vcpu, count in zip(state["vcpus"], before, strict=True)):
                return "", seconds
            if seconds > PATIENCE:
                return f"a vCPU stands still: {state}", seconds
            time.sleep(0.001)

    def _left(self) -> str:
        """What is not as it was, once all processes have ended."""
        state = self._state()
        left = {
            "a ring": state["ring"],
            "traps": state["armed"],
            "page permissions": state["restricted"],
            "pauses": state["pauses"],
            "single-step": any(vcpu["single_step"] for vcpu in state["vcpus"]),
            "waiting vCPUs": any(vcpu["event_pauses"] for vcpu in state["vcpus"]),
            "a journal": list((self.simulation.directory / "state").glob("*.journal")),
        }
        names = [name for name, value in left.items() if value]
        return f"left behind: {', '.join(names)}" if names else ""


def _kill(front: int, victim: str) -> dict[str, int]:
    """Kill one of them, the front where there is no such process; all that there were."""
    pids = {"front": front, "job": -front}
    for name, parent in (("supervisor", front), ("worker", "supervisor")):
        children = _children(pids.get(parent, 0) if isinstance(parent, str) else parent)
        if children:
            pids[name] = children[0]
    with suppress(ProcessLookupError):  # it was just ending
        os.kill(pids.get(victim, front), signal.SIGKILL)
    return pids


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in listed.split()]


def campaign(count: int, seed: int, victims: dict[str, float], progress: bool = False) -> list[Kill]:
    """Kill ``count`` times, or until Ctrl-C; each number of vCPUs in turn.

    Args:
        count: how often.
        seed: of all that is random.
        victims: who is killed, with weights.
        progress: say how far it is on stderr.
    """
    chooser = random.Random(seed)
    names, weights = list(victims), list(victims.values())
    kills: list[Kill] = []
    try:
        for start in range(0, count, _BLOCK):
            with closing(Campaign(VCPUS[start // _BLOCK % len(VCPUS)], seed + start)) as one:
                block = range(start, min(start + _BLOCK, count))
                kills.extend(one.turn(chooser.choices(names, weights)[0]) for _ in block)
            if progress:
                print(f"\r{len(kills)} of {count}", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass  # so far, then
    return kills
