"""Writes that a policy denies: armed only where answers that deny are sent, refused where they cannot be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.simulated import Host, interrupted, simulated_host

if TYPE_CHECKING:
    from pathlib import Path

DENY = "from xenintro.response import Response\ndef decide(event, guest):\n    return Response.deny()\n"
EVENTS = "cr0,cr3,cr4,msr:lstar"
#: The guest waits until it is watched, then writes each register a hundred times, and CR0 and CR3 first.
SCENARIO = "counted"


@pytest.fixture
def policy(tmp_path: Path) -> str:
    file = tmp_path / "deny.py"
    file.write_text(DENY)
    return str(file)


def registers(host: Host) -> dict[str, int]:
    state: dict[str, int] = host.simulation.control("state")["vcpus"][0]["registers"]
    return {name: state[name] for name in ("cr0", "cr3", "cr4", "msr_lstar")}


def watch(host: Host, policy: str, mode: str, *more: str) -> list[str]:
    # A loaded machine is no reason to let a write happen here.
    options = ["--mode", mode, "--format", "jsonl", "--deadline", "10s", *more]
    return ["watch", "--domid", "1", "-e", EVENTS, "-p", policy, *options]


@pytest.mark.parametrize("abi", ["vm_event-1", "vm_event-5", "vm_event-6", "vm_event-7", "vm_event-7-4.22"])
def test_denied_writes_do_not_happen(policy: str, abi: str) -> None:
    with simulated_host(abi=abi, scenario=SCENARIO, vcpus=1) as host:
        before = registers(host)
        with host.start(*watch(host, policy, "enforce")) as process:
            assert host.simulation.wait("idle", timeout=60)
            armed = host.simulation.control("state")["control_registers"]
            ended = interrupted(process)
        assert ended.code == 0, ended.stderr
        answers = {json.loads(line)["answer"] for line in ended.stdout.splitlines()}
        assert answers == {"deny"}
        assert registers(host) == before
        assert armed == (abi > "vm_event-5")
        assert not host.simulation.control("state")["control_registers"], "the end of the ring takes it back"
        report = host.simulation.report()
        assert report["violations"] == []
        assert report["stuck_vcpus"] == []


def test_only_observed_they_happen(policy: str) -> None:
    with simulated_host(scenario=SCENARIO, vcpus=1) as host:
        before = registers(host)
        with host.start(*watch(host, policy, "observe")) as process:
            assert host.simulation.wait("idle", timeout=60)
            assert not host.simulation.control("state")["control_registers"]
            ended = interrupted(process)
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        assert {(line["answer"], line.get("would")) for line in lines} == {("allow", "deny")}
        assert registers(host) != before


@pytest.mark.parametrize(
    ("call", "errno"), [("xencall1", "EPERM"), ("xencall1", "EACCES"), ("xencall_open", "ENOENT")]
)
def test_refused_where_it_cannot_be_had(policy: str, call: str, errno: str) -> None:
    faults = [{"call": call, "errno": errno, "nth": nth} for nth in range(1, 20)]
    with simulated_host(faults=faults) as host:
        ended = host.run(*watch(host, policy, "enforce", "-c", "1"))
        assert ended.code == 6
        assert "register writes cannot be denied here" in ended.stderr
        assert "--mode observe" in ended.stderr
        host.assert_untouched()


def test_observing_says_that_it_could_not_be_enforced(policy: str) -> None:
    with simulated_host(faults=[{"call": "xencall_open", "errno": "ENOENT"}]) as host:
        ended = host.run(*watch(host, policy, "observe", "-c", "1"))
        assert ended.code == 0, ended.stderr
        assert "can be observed, not enforced: register writes cannot be denied here" in ended.stderr
        assert json.loads(ended.stdout)["would"] == "deny"


def test_a_policy_that_never_denies_needs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "allow.py"
    file.write_text("def decide(event, guest):\n    return None\ndecide.denies = False\n")
    with simulated_host(faults=[{"call": "xencall_open", "errno": "ENOENT"}]) as host:
        assert host.run(*watch(host, str(file), "enforce", "-c", "1")).code == 0
        assert host.simulation.control("calls").get("xencall_open", 0) == 0
        host.assert_untouched()


def test_a_ring_is_kept_while_a_write_could_be_lost_with_it(policy: str) -> None:
    """Somebody pauses the domain: a vCPU that was answered does its write only when it runs again."""
    with simulated_host(scenario="storm", vcpus=2) as host:
        with host.start(*watch(host, policy, "enforce")) as process:
            assert host.simulation.wait("answered", 50)
            host.simulation.control("pause")
            ended = interrupted(process)
        assert ended.code == 10
        assert "would be lost with the ring" in ended.stderr
        assert host.simulation.control("state")["ring"]
        host.simulation.control("unpause")
        rescued = host.run("rescue", "--domid", "1")
        assert rescued.code == 0, rescued.stderr
        assert "effects-lost" not in {entry["rule"] for entry in host.simulation.report()["violations"]}
        before = host.retired()
        assert host.simulation.wait("retired", max(before) + 100, timeout=20)


def test_doctor_says_whether_it_can_be_had() -> None:
    with simulated_host() as host:
        assert "can be denied" in host.run("doctor", "--domid", "1").stdout
        host.simulation.control("fault", fault={"call": "xencall1", "errno": "EPERM"})
        ended = host.run("doctor", "--domid", "1")
        assert "register writes cannot be denied here" in ended.stdout
