"""Debian's unmodified xen-access on the simulator: a thousand events in each of its modes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xenintro.sim import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator

XEN_ACCESS = Path("/usr/lib/xen-4.17/bin/xen-access")
EVENTS = 1000
DEADLINE = 30

MODES = {
    "breakpoint": "software_breakpoint",
    "cpuid": "cpuid",
    "debug": "debug_exception",
    "desc_access": "descriptor_access",
    "write_ctrlreg_cr4": "write_ctrlreg",
    "write": "mem_access",
    "exec": "mem_access",
}

pytestmark = pytest.mark.skipif(
    not XEN_ACCESS.exists(), reason="xen-access 4.17 is not installed (xen-utils-4.17)"
)


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(vcpus=2, scenario="storm") as simulation:
        yield simulation


def start(simulation: Simulation, mode: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **simulation.environment}
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([XEN_ACCESS, "1", mode], env=environment, **output)


@pytest.mark.parametrize("mode", MODES)
def test_every_event_is_answered(simulation: Simulation, mode: str) -> None:
    program = start(simulation, mode)
    try:
        assert simulation.wait("answered", EVENTS, timeout=DEADLINE)
        program.send_signal(signal.SIGINT)
        assert program.wait(DEADLINE) == 0
    finally:
        program.kill()
        program.wait()

    report = simulation.report()
    assert report["events"] == report["answered"] >= EVENTS
    assert set(report["by_reason"]) == {MODES[mode]}
    assert report["violations"] == []
    assert report["stuck_vcpus"] == []
    state = simulation.control("state")
    assert not state["ring"]
    assert not state["armed"]
    retired = max(vcpu["retired"] for vcpu in state["vcpus"])
    assert simulation.wait("retired", retired + 100, timeout=DEADLINE), "the guest runs on"


def test_killed_in_the_middle_it_leaves_a_frozen_guest(simulation: Simulation) -> None:
    program = start(simulation, "cpuid")
    assert simulation.wait("answered", 100, timeout=DEADLINE)
    program.kill()
    program.wait()

    assert simulation.control("state")["ring"]
    second = start(simulation, "cpuid")
    assert second.wait(DEADLINE) != 0, "EBUSY"
    rules = [entry["rule"] for entry in simulation.report()["violations"]]
    assert "ring-left" in rules


def test_versioned_symbols_resolve_without_a_word(simulation: Simulation) -> None:
    environment = {**os.environ, **simulation.environment, "LD_BIND_NOW": "1"}
    result = subprocess.run(
        [XEN_ACCESS], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )

    assert "no version information" not in result.stderr
    assert "Usage" in result.stderr + result.stdout
