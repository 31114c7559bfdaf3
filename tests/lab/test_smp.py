"""Two vCPUs at once: each one's events are all there, none is answered for the other."""

from __future__ import annotations

from tests.lab.guest.facts import TIMES
from tests.lab.rig import Rig
from tests.lab.scenario import watched


def test_each_vcpu_has_its_own_events(rig: Rig) -> None:
    seen = watched(rig, "smp cr3 msr cpuid request", "cr3,msr:lstar,cpuid,guest-request", vcpus=2)
    assert seen.result.status == 0, seen.result.errors
    for vcpu in range(2):
        mine = [event["reason"] for event in seen.of(vcpu)]
        counts = {reason: mine.count(reason) for reason in set(mine)}
        assert counts == {
            # vCPU 0 has loaded CR3 once on its way to long mode; vCPU 1 was born there.
            "write_ctrlreg": 2 * TIMES["N_CR3"] + (vcpu == 0),
            "mov_to_msr": TIMES["N_MSR"],
            "cpuid": TIMES["N_CPUID"],
            "guest_request": TIMES["N_REQUEST"],
        }
    assert seen.tallies["cpuid"] == 2 * TIMES["N_CPUID"]
