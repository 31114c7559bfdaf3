"""deadline: whatever stalls Python, no vCPU waits longer than that, and the monitor goes on afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.cli.runner import TIMEOUT, environment
from tests.cli.simulated import simulated_host

DEADLINE = 0.1
#: One wake-up of a thread and the simulator's part, on a machine that others use too.
SLACK = 0.4
#: Answers by the thread that each vCPU gets during the stall: it is longer than deadline and slack together.
ROUNDS = 10
VCPUS = 4
EVENTS = (
    "mem:w@0x400-0xbff:step,mem:x@0xc00-0xdff,cr0,cr3,cr4,msr:lstar,cpuid,int3,debug,desc,guest-request,"
    "interrupt"
)


@pytest.mark.parametrize(
    "kind", ["policy-sleeps", "policy-spins", "policy-holds-the-interpreter", "observer-blocks"]
)
def test_deadline(kind: str) -> None:
    with simulated_host(vcpus=VCPUS, scenario="storm") as host:
        simulation = host.simulation
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.cli.stalling",
                str(simulation.directory),
                kind,
                str(DEADLINE),
                EVENTS,
            ],
            cwd=Path(__file__).parents[2],
            env=environment(**simulation.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            stdin, stdout = _pipes(process)
            assert stdout.readline() == b"stalled\n"
            stalled_at = simulation.report()["answered"]
            assert simulation.wait("answered", stalled_at + ROUNDS * VCPUS, timeout=TIMEOUT)
            stdin.write(b"\n")
            stdin.flush()
            # Back at work: answers come faster than the thread could give them.
            resumed_at = simulation.report()["answered"]
            assert simulation.wait("answered", resumed_at + 2000, timeout=TIMEOUT)
            stdin.close()
            result = json.loads(stdout.read())
            assert process.wait(TIMEOUT) == 0
        report = simulation.report()
        assert report["answer_ns"]["max"] < (DEADLINE + SLACK) * 1e9
        assert result["longest_ns"] < (DEADLINE + SLACK) * 1e9
        assert result["deadline_missed"] >= (ROUNDS - 1) * VCPUS
        assert set(result["after"]) >= {"mem_access", "software_breakpoint", "write_ctrlreg", "singlestep"}
        host.assert_untouched()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout
