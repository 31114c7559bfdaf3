"""A hundred thousand events of eight vCPUs: each answered once, no rule broken, no memory gained."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.simulated import finished, simulated_host

EVENTS = 100_000
EVERYTHING = "mem:rwx@0x400-0x2fff,cr0,cr3,cr4,xcr0,msr:lstar,cpuid,int3,debug,desc,guest-request"
#: What an allocator may keep in fragments; a leak of one slot per event would be 30 MB.
SLACK_KIB = 1024


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_events() -> None:
    with simulated_host(vcpus=8, scenario="storm") as host:
        process = host.start(
            *("watch", "--domid", "1", "-e", EVERYTHING, "--format", "jsonl", "-q"),
            *("-c", str(EVENTS)),
            stdout=subprocess.DEVNULL,
        )
        assert host.simulation.wait("answered", EVENTS // 5, timeout=120)
        early = resident_kib(process.pid)
        assert host.simulation.wait("answered", EVENTS * 19 // 20, timeout=240)
        late = resident_kib(process.pid)
        outcome = finished(process)
        assert outcome.code == 0, outcome.stderr
        assert late - early < SLACK_KIB
        report = host.simulation.report()
        assert report["events"] >= EVENTS
        host.assert_untouched()
