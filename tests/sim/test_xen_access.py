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


def start(simulation: Simulation, mode: str, *options: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **simulation.environment}
    return subprocess.Popen(
        [XEN_ACCESS, *options, "1", mode],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run(simulation: Simulation, mode: str, *options: str) -> int:
    """Start it, and end it as a user does once it has answered enough; its exit code."""
    program = start(simulation, mode, *options)
    try:
        assert simulation.wait("answered", EVENTS, timeout=DEADLINE)
        program.send_signal(signal.SIGINT)
        return program.wait(DEADLINE)
    finally:
        program.kill()
        program.wait()


@pytest.mark.parametrize("mode", MODES)
def test_every_event_is_answered(simulation: Simulation, mode: str) -> None:
    assert run(simulation, mode) == 0

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


@pytest.mark.parametrize(
    ("mode", "options", "rules"),
    [
        ("write", ["-m"], {"access-required-left"}),
        # It turns altp2m off before its last answers, which still switch views, and fails.
        ("altp2m_write", [], {"flag-ignored"}),
        ("altp2m_write_no_gpt", [], {"flag-ignored", "traps-left"}),
    ],
)
def test_its_own_mistakes_are_named(
    simulation: Simulation, mode: str, options: list[str], rules: set[str]
) -> None:
    run(simulation, mode, *options)

    report = simulation.report()
    assert report["events"] == report["answered"] >= EVENTS
    assert report["stuck_vcpus"] == []
    assert {entry["rule"] for entry in report["violations"]} <= rules
    assert rules & {"access-required-left", "traps-left"} <= {entry["rule"] for entry in report["violations"]}


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
