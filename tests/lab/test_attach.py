"""Attach and detach, over and over: the guest runs on each time."""

from __future__ import annotations

import pytest

from tests.lab.conftest import ATTACHES
from tests.lab.rig import Rig
from tests.lab.scenario import Guest, attach

#: Kinds that go on in the guest meanwhile, and how they are watched, by emulator.
_BUSY = {
    "vmx": ("cr3 cpuid int3 write", "cr3,cpuid,int3,mem:w@0x409"),
    "svm": ("cr3 cpuid msr", "cr3,cpuid,msr:lstar"),
}


def test_many_times_in_a_row(rig: Rig, request: pytest.FixtureRequest) -> None:
    words, events = _BUSY[rig.cpu]
    with Guest(rig, f"forever smp {words}", 2) as guest:
        guest.unpause()
        guest.done()
        guest.slow_down()
        for turn in range(request.config.getoption("--attaches", default=ATTACHES)):
            watch = f"xenintro watch --domid {guest.domid} -e {events} -c 40 --format jsonl"
            ended = rig.run(f"{watch} > out || cat out; wc -l < out", timeout=120)
            assert ended.output.split()[-1] == "40", (turn, ended.output)
            assert guest.runs(), f"the guest stopped after detach {turn}"


def test_interrupted_while_busy(rig: Rig) -> None:
    """Ctrl-C in the middle of events: none is lost, the guest runs on."""
    words, events = _BUSY[rig.cpu]
    with Guest(rig, f"forever {words} smp", 2) as guest:
        guest.unpause()
        guest.done()
        job = attach(guest, events)
        job.wait("[ $(wc -l < out) -gt 50 ]", timeout=300)
        ended = job.finish("INT", timeout=300)
        assert ended.status == 0, ended.errors
        assert guest.runs()


def test_a_paused_guest_stays_paused(rig: Rig) -> None:
    with Guest(rig, "cr3") as guest:
        job = attach(guest, "cr3")
        assert job.finish("INT").status == 0
        assert "--p---" in rig.run("xl list lab").output
        guest.unpause()
        guest.done()


def test_domain_goes_away(rig: Rig) -> None:
    with Guest(rig, "forever cr3") as guest:
        guest.unpause()
        guest.done()
        job = attach(guest, "cr4")
        rig.run("xl destroy lab")
        ended = job.finish(None, timeout=300)
        assert ended.status == 9, ended.errors
        assert f" {guest.domid} " not in rig.run("xl list").output  # no zombie held by our mapping
