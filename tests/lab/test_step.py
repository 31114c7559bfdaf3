"""Single-stepping: by itself, and as the way past a closed page. Only VMX has it (monitor trap flag)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.lab.guest.expected import KINDS, Want, events
from tests.lab.guest.facts import TIMES
from tests.lab.rig import Rig
from tests.lab.scenario import Guest, number, watched


@pytest.mark.cpus("vmx")
def test_every_instruction(rig: Rig) -> None:
    """The run of NOPs comes out one by one: a step before the first, and one behind each."""
    seen = watched(rig, "step", "singlestep")
    assert seen.result.status == 0, seen.result.errors
    assert {event["reason"] for event in seen.events} == {"singlestep"}
    rips = [number(event["regs"]["rip"]) for event in seen.events]
    steps = "".join("1" if after == before + 1 else " " for before, after in pairwise(rips))  # type: ignore[operator]
    assert max(map(len, steps.split())) == TIMES["N_STEP"]


@pytest.mark.cpus("vmx")
@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("read", "exec")), "write"]
)
def test_over_a_page(rig: Rig, kind: str) -> None:
    """The same events as when Xen emulates the access."""
    seen = watched(rig, kind, f"{KINDS[kind].watch}:step")
    assert seen.result.status == 0, seen.result.errors
    wanted = events(kind, KINDS[kind].watch)
    got = [
        Want(event["reason"], {key: number(event["mem_access"][key]) for key in wanted[0].payload})
        for event in seen.events
    ]
    assert got == wanted


@pytest.mark.cpus("svm")
@pytest.mark.parametrize("option", ["singlestep", "mem:w@0x409"])
def test_not_on_amd(rig: Rig, option: str) -> None:
    """Refused with a reason, and the guest is as it was."""
    with Guest(rig, "cr3") as guest:
        refused = rig.run(f"xenintro watch --domid {guest.domid} -e {option} -c 1", check=False)
        assert refused.status == 6, refused.output
        guest.unpause()
        guest.done()
