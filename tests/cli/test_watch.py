"""``xenintro watch`` on the simulator: what it prints, how it ends, and that the guest never notices."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import TIMEOUT, xenintro
from tests.cli.simulated import Host, finished, interrupted, simulated_host

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING = "mem:rwx@0x400-0x2fff,cr0,cr3,cr4,xcr0,msr:lstar,cpuid,int3,debug,desc,guest-request,interrupt"
REASONS = {
    *("mem_access", "write_ctrlreg", "mov_to_msr", "cpuid", "software_breakpoint", "debug_exception"),
    *("descriptor_access", "guest_request", "interrupt"),
}


@pytest.fixture
def host() -> Iterator[Host]:
    with simulated_host() as host:
        yield host


def test_every_kind_is_printed_and_the_guest_runs_on(host: Host) -> None:
    outcome = host.run("watch", "--domid", "1", "-e", EVERYTHING, "--format", "jsonl", "-c", "300")
    assert outcome.code == 0, outcome.stderr
    assert len(outcome.records) == 300
    assert {record["reason"] for record in outcome.records} == REASONS
    assert [record["seq"] for record in outcome.records] == list(range(300))
    first = outcome.records[0]
    assert (first["v"], first["domid"], first["domain"], first["abi"]) == (1, 1, "tiny", "vm_event-7")
    assert first["answer"] == "allow"
    assert first["pause_ns"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", first["ts"])
    host.assert_untouched()


def test_every_event_of_a_counted_guest_is_seen() -> None:
    with simulated_host(vcpus=2, scenario="counted") as host:
        outcome = host.run(
            "watch", "-d", "1", "-e", "cr3,cpuid", "-e", "int3", "--format", "jsonl", "-c", "600"
        )
        assert host.simulation.wait("idle")
        counts = {name: sum(r["reason"] == name for r in outcome.records) for name in REASONS}
        assert {name: count for name, count in counts.items() if count} == {
            "write_ctrlreg": 200,
            "cpuid": 200,
            "software_breakpoint": 200,
        }
        assert host.simulation.control("state")["vcpus"][1]["traps"]["3"] == 100
        assert host.simulation.report()["violations"] == []


def test_an_asynchronous_event_paused_nobody(host: Host) -> None:
    outcome = host.run("watch", "-d", "1", "-e", "guest-request:async", "--format", "jsonl", "-c", "3")
    assert {record["pause_ns"] for record in outcome.records} == {None}
    assert all("vcpu_paused" not in record["flags"] for record in outcome.records)
    host.assert_untouched()


def test_list_says_who_cannot_be_watched(host: Host) -> None:
    def why_not() -> dict[int, str | None]:
        return {r["domid"]: r["why_not"] for r in host.run("list", "--format", "jsonl").records}

    assert why_not() == {0: "the control domain", 1: None, 2: "PV has no vm_events"}
    first = host.start("watch", "--domid", "1", "-e", "cr3")
    assert host.simulation.wait("answered", 1)
    assert why_not()[1] == "another agent is attached, or died attached"
    assert interrupted(first).code == 0


def test_memory_accesses_carry_page_offset_and_registers(host: Host) -> None:
    outcome = host.run("watch", "-d", "1", "-e", "mem:w@0x400-0x23ff", "--format", "jsonl", "-c", "5")
    for record in outcome.records:
        access = record["mem_access"]
        assert (access["access"], access["offset"], access["gla_valid"]) == ("w", "0x4c8", True)
        assert 0x400 <= int(access["gfn"], 16) <= 0x23FF
        assert record["regs"]["cr3"] != "0x0"
        assert record["regs"]["dr6"] is None
    host.assert_untouched()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_well(host: Host, number: int) -> None:
    process = host.start("watch", "--domid", "1", "-e", "cr3,cpuid,mem:w@0x400-0x23ff")
    assert host.simulation.wait("answered", 50)
    outcome = interrupted(process, number)
    assert outcome.code == 0, outcome.stderr
    assert "stopped: traps off, all answered, domain released" in outcome.stderr
    assert "0 unanswered" in outcome.stderr
    assert re.search(r"guest paused .* of vCPU time \(\d+\.\d %\)", outcome.stderr)
    host.assert_untouched()


def test_a_second_ctrl_c_does_not_abandon_the_guest(host: Host) -> None:
    process = host.start("watch", "--domid", "1", "-e", "cr3,cpuid")
    assert host.simulation.wait("answered", 50)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert finished(process).code == 0
    host.assert_untouched()


def test_a_closed_pipe_ends_it_well(host: Host) -> None:
    process = host.start("watch", "--domid", "1", "-e", EVERYTHING, "--format", "jsonl")
    assert process.stdout is not None
    json.loads(process.stdout.readline())
    process.stdout.close()
    assert process.wait(TIMEOUT) == 0
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    host.assert_untouched()


def test_head_is_satisfied(host: Host) -> None:
    watch = host.start("watch", "-d", "1", "-e", EVERYTHING, "--format", "jsonl", stderr=subprocess.DEVNULL)
    head = subprocess.run(
        ["head", "-1"], stdin=watch.stdout, capture_output=True, timeout=TIMEOUT, check=True
    )
    assert watch.stdout is not None
    watch.stdout.close()
    assert watch.wait(TIMEOUT) == 0
    assert json.loads(head.stdout)["seq"] == 0
    host.assert_untouched()


def test_duration_ends_it(host: Host) -> None:
    outcome = host.run("watch", "--domid", "1", "-e", "cr3", "-t", "300ms", "-q")
    assert outcome.code == 0
    assert outcome.stderr == ""
    host.assert_untouched()


def test_human_lines_and_summary(host: Host) -> None:
    outcome = host.run("watch", "--domid", "1", "-e", "cr3,mem:w@0x400-0x23ff", "-c", "12")
    lines = outcome.stdout.splitlines()
    assert len(lines) == 13
    assert lines[0].split() == ["time", "vcpu", "event", "what", "where", "answer", "pause"]
    assert any(
        re.search(r"v0 +write_ctrlreg +cr3  0x10\d000 → 0x10\d000 +rip ffff8000'0010", line) for line in lines
    )
    assert any(re.search(r"v0 +mem_access +-w-  gfn 0x[0-9a-f]+\+4c8  gla ffff8000'", line) for line in lines)
    assert "watching tiny (domid 1)" in outcome.stderr
    assert re.search(r"write_ctrlreg +\d+ +\d+ µs", outcome.stderr)


def test_single_step_is_never_left_on(host: Host) -> None:
    outcome = host.run("watch", "--domid", "1", "-e", "singlestep", "-c", "200", "--format", "jsonl")
    assert outcome.code == 0, outcome.stderr
    assert {record["reason"] for record in outcome.records} == {"singlestep"}
    host.assert_untouched()


def test_interrupts_come_with_other_events_only(host: Host) -> None:
    outcome = host.run("watch", "--domid", "1", "-e", "interrupt", "-c", "3", "--format", "jsonl")
    assert outcome.code == 6
    assert "-e interrupt,cr3" in outcome.stderr
    outcome = host.run("watch", "--domid", "1", "-e", "interrupt,cpuid", "-c", "30", "--format", "jsonl")
    assert outcome.code == 0, outcome.stderr
    assert {record["reason"] for record in outcome.records} == {"interrupt", "cpuid"}
    host.assert_untouched()


def test_pages_are_stepped_over_when_asked(host: Host) -> None:
    outcome = host.run(
        "watch", "--domid", "1", "-e", "mem:w@0x400-0x23ff:step", "-c", "50", "--format", "jsonl"
    )
    assert outcome.code == 0, outcome.stderr
    assert {record["reason"] for record in outcome.records} == {"mem_access"}
    assert host.simulation.control("access", gfn=0x400)["access"] == 7
    host.assert_untouched()


def test_busy(host: Host) -> None:
    first = host.start("watch", "--domid", "1", "-e", "cr3")
    assert host.simulation.wait("answered", 1)
    second = host.run("watch", "--domid", "1", "-e", "cr4")
    assert second.code == 5
    assert len(second.error) == 3
    assert "busy" in second.error[0]
    doctor = host.run("doctor", "--domid", "1", "--format", "jsonl")
    assert doctor.code == 6
    assert next(r for r in doctor.records if r["id"] == "ring")["level"] == "error"
    assert interrupted(first).code == 0
    assert host.run("doctor", "--domid", "1").code == 0
    host.assert_untouched()


@pytest.mark.parametrize(("domid", "code"), [("7", 4), ("2", 6), ("40000", 4)])
def test_domains_that_cannot_be_watched(host: Host, domid: str, code: int) -> None:
    outcome = host.run("watch", "--domid", domid, "-e", "cr3")
    assert outcome.code == code
    assert len(outcome.error) == 3
    host.assert_untouched()


def test_verbose_tells_the_steps(host: Host) -> None:
    outcome = host.run("watch", "--domid", "1", "-e", "cr3,mem:w@0x400", "-c", "2", "-v")
    assert "INFO: ring of 8 slots, event channel port" in outcome.stderr
    assert "INFO: armed cr3" in outcome.stderr
    assert "INFO: released, 0 requests unanswered" in outcome.stderr


def test_by_name(host: Host) -> None:
    assert host.run("watch", "--name", "tiny", "-e", "cr3", "-c", "1").code == 0
    outcome = host.run("watch", "--name", "nobody", "-e", "cr3", "-c", "1")
    assert outcome.code == 4
    assert outcome.error[0] == "error: no domain is called 'nobody'"
    assert host.run("watch", "-e", "cr3").code == 2


@pytest.mark.parametrize("disaster", ["destroy", "crash", "reboot"])
def test_the_domain_going_away_exits_9(host: Host, disaster: str) -> None:
    process = host.start("watch", "--domid", "1", "-e", "cr3,cpuid")
    assert host.simulation.wait("answered", 20)
    host.simulation.control(disaster)
    outcome = finished(process)
    assert outcome.code == 9, outcome.stderr
    assert outcome.error[0].startswith("error: tiny ")
    assert host.simulation.report()["violations"] == []


def test_what_the_host_cannot_trap_is_refused_before_anything_happens() -> None:
    with simulated_host(vendor="amd") as host:
        for events, words in (("singlestep", "Intel"), ("mem:w@0x400", "Intel")):
            outcome = host.run("watch", "--domid", "1", "-e", events)
            assert outcome.code == 6, outcome.stderr
            assert words in outcome.stderr
        assert host.run("watch", "--domid", "1", "-e", "cr3,cpuid,int3", "-c", "20").code == 0
        host.assert_untouched()


@pytest.mark.parametrize("version", range(1, 8))
@pytest.mark.parametrize("vcpus", [1, 4])
def test_every_interface_version(version: int, vcpus: int) -> None:
    events = "cr3,cr4,msr:lstar,int3,guest-request,mem:w@0x400-0x23ff"
    events += ",cpuid,debug" if version >= 2 else ""
    with simulated_host(abi=f"vm_event-{version}", vcpus=vcpus) as host:
        outcome = host.run("watch", "--domid", "1", "-e", events, "--format", "jsonl", "-c", "200")
        assert outcome.code == 0, outcome.stderr
        assert {record["abi"] for record in outcome.records} == {f"vm_event-{version}"}
        assert {record["vcpu_id"] for record in outcome.records} == set(range(vcpus))
        host.assert_untouched()


def test_more_vcpus_than_slots() -> None:
    with simulated_host(vcpus=16, scenario="storm") as host:
        outcome = host.run("watch", "--domid", "1", "-e", EVERYTHING, "-c", "2000", "--format", "jsonl")
        assert outcome.code == 0, outcome.stderr
        assert {record["vcpu_id"] for record in outcome.records} == set(range(16))
        host.assert_untouched()


def test_more_than_eight_vcpus_are_refused_where_xen_loses_them() -> None:
    with simulated_host(vcpus=9, abi="vm_event-1") as host:
        outcome = host.run("watch", "--domid", "1", "-e", "cr3")
        assert outcome.code == 6
        assert "9 vCPUs" in outcome.error[0]


def test_the_environment_chooses_the_simulator() -> None:
    outcome = xenintro(
        "watch", "--domid", "1", "-e", "cr3", "-c", "3", "--format", "jsonl", XENINTRO_XEN="sim"
    )
    assert outcome.code == 0, outcome.stderr
    assert len(outcome.records) == 3


def test_demo() -> None:
    outcome = xenintro("demo", "-c", "30", "--format", "jsonl")
    assert outcome.code == 0, outcome.stderr
    assert len(outcome.records) == 30
