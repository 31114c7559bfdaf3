"""No guest is lost: killed watchers, killed xen-access, a policy that sleeps."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.lab.conftest import KILLS, report
from tests.lab.guest.facts import value
from tests.lab.rig import Job, Rig
from tests.lab.scenario import Guest, attach

_SCRIPT = Path(__file__).with_name("dom0") / "kills.py"

#: Guests whose watchers are killed: vCPUs, words, events. On one with more vCPUs than the ring has slots,
#: vCPUs sleep inside Xen when its watcher dies.
_GUESTS = {
    "vmx": [
        (1, "cr3 cpuid int3 write", "cr3,cpuid,int3,mem:w@0x409"),
        (2, "smp cr3 msr exec write", "cr3,msr:lstar,mem:x@0x40a,mem:w@0x409:step"),
    ],
    "svm": [
        (1, "cr3 cr4 desc", "cr3,cr4,desc"),
        (2, "smp cr3 cpuid msr", "cr3,cpuid,msr:lstar"),
        (12, "smp cr3 request", "cr3,guest-request"),
    ],
}

#: What is killed beside the worker, on the faster of the two emulators.
_OTHERS = ["supervisor", "job", "all", "all"]

#: The words of xen-access and of the guest, by emulator: what freezes the guest.
_XEN_ACCESS = {"svm": [("cpuid", "cpuid"), ("write_ctrlreg_cr4", "bench-cr4")], "vmx": [("write", "write")]}

_SLEEPS = """
import time
def decide(event, guest):
    time.sleep(2)
"""
_DEADLINE = 0.1


def _kill(rig: Rig, guest: Guest, events: str, victims: list[str]) -> list[dict[str, object]]:
    """Kill watchers of a guest until it is lost or all victims have had their turn."""
    rig.put("/root/kills.py", _SCRIPT.read_text())
    asked = {
        "domid": guest.domid, "vcpus": guest.vcpus, "address": value("PROGRESS"), "events": events,
        "seed": f"{rig.cpu} {guest.vcpus}", "victims": victims,
    }  # fmt: skip
    done = rig.run(f"python3 /root/kills.py '{json.dumps(asked)}'", timeout=60 + 20 * len(victims))
    return [json.loads(line) for line in done.output.splitlines()]


def test_killed_watchers(rig: Rig, request: pytest.FixtureRequest) -> None:
    """SIGKILL while it attaches, watches and lets go, to the watching process: its supervisor takes over.

    Without a supervisor the watching process ends in order; if all died, there is `xenintro rescue`.
    """
    guests = _GUESTS[rig.cpu]
    for number, (vcpus, words, events) in enumerate(guests):
        victims = ["worker"] * ((request.config.getoption("--kills", default=KILLS) + number) // len(guests))
        victims += _OTHERS if vcpus == 2 else []
        with Guest(rig, f"forever {words}", vcpus) as guest:
            guest.unpause()
            guest.done()
            guest.slow_down()
            kills = _kill(rig, guest, events, victims)
            report(rig, f"{vcpus} vCPUs, {events}", kills)
            assert [kill for kill in kills if kill["lost"]] == []
            assert Counter(kill["victim"] for kill in kills) == Counter(victims)
            assert guest.runs()


def test_frozen_by_xen_access(rig: Rig) -> None:
    for watch, words in _XEN_ACCESS[rig.cpu]:
        with Guest(rig, f"smp {words}", 2) as guest:
            job = rig.start(f"xen-access {guest.domid} {watch}")
            job.wait("grep -q ^starting err", timeout=300)
            job.wait("kill -STOP $(cat pid)")
            guest.unpause()
            _stands_still(job)
            job.finish("KILL")
            rescue = f"xenintro rescue --domid {guest.domid}"
            done = rig.run(rescue, timeout=300).output
            assert re.search(r"^[12] of 2 vCPUs stood still and run again", done), done
            guest.done()
            assert rig.run(f"{rescue} --if-needed", timeout=300).output == ""
            assert len(guest.progress()) == 2


def _stands_still(job: Job) -> None:
    """Wait until the guest's vCPUs use no time: they wait for an answer."""
    job.wait('before=$(xl vcpu-list lab); sleep 1; [ "$before" = "$(xl vcpu-list lab)" ]')


@pytest.mark.cpus("svm")
def test_rescue_leaves_a_living_watcher_alone(rig: Rig) -> None:
    with Guest(rig, "cr3") as guest:
        job = attach(guest, "cr3")
        refused = rig.run(f"xenintro rescue --domid {guest.domid}", timeout=300, check=False)
        assert refused.status == 5, refused.output
        guest.unpause()
        guest.done()
        ended = job.finish("INT")
        assert ended.status == 0, ended.errors
        assert len(ended.output.splitlines()) > 1


@pytest.mark.cpus("svm")
def test_policy_that_sleeps(rig: Rig) -> None:
    """Each event waits for the deadline, and not for the policy."""
    rig.put("/root/sleeps.py", _SLEEPS)
    with Guest(rig, "forever msr") as guest:
        guest.unpause()
        guest.done()
        job = attach(guest, "msr:lstar", f"-p /root/sleeps.py --deadline {_DEADLINE * 1000:.0f}ms")
        job.wait("[ $(wc -l < out) -gt 3 ]", timeout=300)
        assert guest.runs()
        ended = job.finish("INT", timeout=300)
        assert ended.status == 0, ended.errors
        shown = [json.loads(line) for line in ended.output.splitlines()]
        assert min(event["pause_ns"] for event in shown if event.get("late")) >= _DEADLINE * 1e9
        assert max(event["pause_ns"] for event in shown) < 1e9
        assert guest.runs()
