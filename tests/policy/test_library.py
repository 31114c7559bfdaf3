"""The rules that come with xenintro: their tests pass, and the guest's registers show their effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cli.simulated import interrupted, simulated_host
from xenintro.policy.reader import load_rules
from xenintro.policy.spec import library
from xenintro.policy.testing import run_tests

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.cli.simulated import Host


class Shown(NamedTuple):
    """What a guest does, and what is left of it.

    ``ends`` are registers at the end, observed and enforced.
    """

    events: str
    ops: str
    answer: str
    ends: dict[str, tuple[int, int]]


#: Denying needs nothing armed before Xen 4.14.
ABI = "vm_event-5"

SHOWN = {
    "freeze-syscall-msrs": Shown(
        "msr:lstar",
        'do = "wrmsr"\nmsr = "lstar"\nvalues = [0xdead0000]',
        "deny",
        {"msr_lstar": (0xDEAD0000, 0xFFFF_8000_0010_9000)},
    ),
    "keep-protections": Shown(
        "cr0,cr4",
        'do = "cr4"\nvalues = [0x3006a0, 0x1006a0, 0x2006a0]\ntimes = 3\n'
        '[[op]]\ndo = "cr0"\nvalues = [0x80040033]',
        "deny",
        {"cr4": (0x2006A0, 0x3006A0), "cr0": (0x80040033, 0x80050033)},
    ),
    "known-cr3": Shown(
        "cr3",
        'do = "cr3"\nvalues = [0x103000, 0x203000]\ntimes = 2',
        "deny",
        {"cr3": (0x203000, 0x103000)},
    ),
    "guest-request-gate": Shown(
        "guest-request",
        'do = "guest_request"\ntimes = 400',
        "set-registers+skip",
        {"rax": (0, 0xFFFF_FFFF_FFFF_FFF0)},
    ),
    "write-protect-pages": Shown(
        "mem:w@0x400-0x4ff",
        'do = "write"\ngfn = 0x400\npages = 8\ntimes = 8',
        "emulate-nowrite",
        {},
    ),
    "hide-hypervisor": Shown(
        "cpuid",
        'do = "cpuid"\nleaves = [1, 0x40000000]\ntimes = 2',
        "set-registers+skip",
        {"rbx": (0x566E_6558, 0)},
    ),
}


def test_all_of_them_are_shown() -> None:
    assert {path.stem for path in library()} == set(SHOWN)


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_their_tests_pass(path: Path) -> None:
    policy = load_rules(path)
    outcomes = list(run_tests(policy, lambda path, seq: ()))
    assert [outcome for outcome in outcomes if outcome.differences] == []
    assert {outcome.rule for outcome in outcomes} == {rule.name for rule in policy.rules}
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("name", SHOWN)
def test_the_guest_shows_it(name: str, tmp_path: Path) -> None:
    shown = SHOWN[name]
    for enforced, mode in enumerate(("observe", "enforce")):
        vcpu, record = watched(name, shown, mode, tmp_path / "guest.toml")
        for register, values in shown.ends.items():
            assert vcpu["registers"][register] == values[enforced], (mode, register)
        assert record["answer" if enforced else "would"] == shown.answer


def watched(name: str, shown: Shown, mode: str, scenario: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The vCPU at the end, and the last event that a rule had a say in."""
    scenario.write_text(f"pace = 0\nrounds = 1\nwaits = true\n[[op]]\n{shown.ops}\n")
    with simulated_host(abi=ABI, scenario=str(scenario)) as host:
        before = first_byte(host)
        process = host.start(
            *(
                "watch",
                "-d",
                "1",
                "-e",
                shown.events,
                "-p",
                f"lib:{name}",
                "--mode",
                mode,
                "--format",
                "jsonl",
            )
        )
        assert host.simulation.wait("idle")
        outcome = interrupted(process)
        assert outcome.code == 0, outcome.stderr
        report = host.simulation.report()
        assert report["violations"] == []
        assert report["stuck_vcpus"] == []
        if shown.answer == "emulate-nowrite":
            assert (first_byte(host) == before) == (mode == "enforce")
        vcpu = host.simulation.control("state")["vcpus"][0]
        return vcpu, [record for record in outcome.records if record["rule"]][-1]


def first_byte(host: Host) -> str:
    """Of the first page that is written."""
    return str(host.simulation.control("memory", address=0x400000, length=1)["data"])
