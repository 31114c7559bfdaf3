"""xenintro beside Debian's xen-access, on the same simulated Xen, in turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from tests.bench.measure import Row, Timing
from xenintro.sim.launch import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator

_XEN_ACCESS = Path("/usr/lib/xen-4.17/bin/xen-access")
_ROUNDS = 5
_WARM_UP = 500
_EVENTS = 6000

#: The same trap for both: CPUID, which both answer by moving rip.
_COMMANDS = {
    "xenintro": [sys.executable, "-m", "xenintro_cli", "watch", "--domid", "1", "-e", "cpuid", "-q"],
    "xen-access": [str(_XEN_ACCESS), "1", "cpuid"],
}


class _Run(NamedTuple):
    events_per_second: float
    answer_p50_us: float
    answer_p99_us: float


def simulator_rows() -> Iterator[Row]:
    """Events per second and answer latency with 1, 2 and 8 vCPUs."""
    if not _XEN_ACCESS.exists():
        print("xen-access is not installed (xen-utils-4.17): no comparison", file=sys.stderr)
        return
    for vcpus in (1, 2, 8):
        runs = [(_run("xenintro", vcpus), _run("xen-access", vcpus)) for _ in range(_ROUNDS)]
        names = ("events/s", "answer p50", "answer p99")
        for column, (name, unit) in enumerate(zip(names, ("1/s", "us", "us"), strict=True)):
            ours = [pair[0][column] for pair in runs]
            theirs = [pair[1][column] for pair in runs]
            yield Row(
                f"simulator, {vcpus} vCPU, {name}",
                unit,
                Timing.of(ours),
                "xen-access",
                Timing.of(theirs),
                Timing.of([one / other for one, other in zip(ours, theirs, strict=True)]),
                ">= 0.8" if column == 0 else "",
            )


def _run(name: str, vcpus: int) -> _Run:
    with Simulation(vcpus=vcpus, scenario="storm") as simulation:
        process = subprocess.Popen(
            _COMMANDS[name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | simulation.environment,
        )
        try:
            simulation.wait("answered", _WARM_UP)
            begin = perf_counter()
            simulation.wait("answered", _WARM_UP + _EVENTS, timeout=120)
            seconds = perf_counter() - begin
            answer = simulation.report()["answer_ns"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    return _Run(_EVENTS / seconds, answer["p50"] / 1000, answer["p99"] / 1000)
