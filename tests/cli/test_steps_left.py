"""A step that the deadline thread ends while the domain is given back leaves no vCPU stepping."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.runner import TIMEOUT, environment
from tests.cli.simulated import simulated_host

_LATE = """
import sys, time
from xenintro.session import Session
from xenintro.traps import parse_traps
from xenintro.xen.monitor import Monitor
from xenintro.xen.teardown import Teardown
from xenintro.xen.xc import connect

settle = Teardown._settle

def late(self):
    # Single-step is off; nobody but the deadline thread answers what is on the ring.
    time.sleep(0.1)
    settle(self)

Teardown._settle = late
with Monitor(connect(sys.argv[1]), 1, parse_traps("mem:w@0x400-0xbff:step"), deadline=0.01) as monitor:
    Session(monitor, duration=0.1).run()
assert monitor.failures == []
"""


def test_no_vcpu_is_left_stepping() -> None:
    with simulated_host(vcpus=12, scenario="storm") as host:
        for _ in range(4):
            subprocess.run(
                [sys.executable, "-c", _LATE, str(host.simulation.directory)],
                env=environment(**host.simulation.environment),
                timeout=TIMEOUT,
                check=True,
            )
            state = host.simulation.control("state")
            assert [vcpu["single_step"] for vcpu in state["vcpus"]] == [False] * 12
