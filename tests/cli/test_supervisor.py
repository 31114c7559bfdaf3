"""The process that watches ends badly: the guest runs on, and the command says what happened."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from tests.cli.runner import COMMAND, TIMEOUT, environment
from tests.cli.simulated import Host, finished, interrupted, simulated_host

if TYPE_CHECKING:
    import subprocess

EVENTS = "mem:w@0x400-0x23ff,cr3,msr:lstar,cpuid,int3,guest-request"
#: Milliseconds that a scheduler may add to the deadline on a busy machine.
SLACK = 250
DEADLINE = 250


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(host: Host, process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The supervisor and the worker of a command that watches."""
    assert host.simulation.wait("answered", 50)
    (supervisor,) = children(process.pid)
    (worker,) = children(supervisor)
    return supervisor, worker


def assert_given_back(host: Host) -> None:
    state = host.simulation.control("state")
    assert not state["ring"]
    assert state["armed"] == []
    assert state["restricted"] == []
    assert state["pauses"] == 0
    assert not any(vcpu["single_step"] or vcpu["event_pauses"] for vcpu in state["vcpus"])
    assert host.simulation.wait("progress", 100, timeout=20), "the guest does not run"
    assert not list((host.simulation.directory / "state").glob("*.journal"))


def wait_for_end(host: Host) -> None:
    deadline = time.monotonic() + TIMEOUT
    while host.simulation.control("state")["ring"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def policy(folder: Path, body: str) -> str:
    folder.chmod(0o755)
    path = folder / "policy.py"
    path.write_text(f"import ctypes, os, resource, time\ndef decide(event, guest):\n    {body}\n")
    return str(path)


@pytest.mark.parametrize("vcpus", [1, 2, 8, 12])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_worker_killed(number: int, vcpus: int) -> None:
    with simulated_host(vcpus=vcpus, scenario="storm") as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS)
        _, worker = family(host, process)
        os.kill(worker, number)
        outcome = finished(process)
        assert outcome.code == 1, outcome.stderr
        assert len(outcome.error) == 3, outcome.stderr
        assert signal.Signals(number).name in outcome.error[0]
        assert "was given back" in outcome.error[2]
        assert_given_back(host)


def test_killed_by_a_signal_without_a_name() -> None:
    with simulated_host() as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS)
        _, worker = family(host, process)
        os.kill(worker, 40)
        outcome = finished(process)
        assert outcome.code == 1
        assert "killed by signal 40" in outcome.stderr
        assert_given_back(host)


def test_the_supervisor_cannot_be_stopped() -> None:
    with simulated_host() as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS)
        supervisor, worker = family(host, process)
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        assert finished(process).code == 1
        assert_given_back(host)


@pytest.mark.parametrize("vcpus", [2, 8])
def test_supervisor_killed_while_it_rescues(vcpus: int) -> None:
    with simulated_host(vcpus=vcpus, scenario="storm") as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS)
        _, worker = family(host, process)
        fault = {"call": "xc_domain_pause", "nth": 1, "action": "kill-client"}
        host.simulation.control("fault", fault=fault)
        os.kill(worker, signal.SIGKILL)
        outcome = finished(process)
        assert outcome.code == 1, outcome.stderr
        assert "was given back" in outcome.stderr
        assert_given_back(host)


def test_supervisor_killed_and_worker_stopped() -> None:
    with simulated_host(vcpus=2) as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS)
        supervisor, worker = family(host, process)
        os.kill(worker, signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
        outcome = finished(process)
        assert outcome.code == 1, outcome.stderr
        assert_given_back(host)


def test_a_journal_that_went_away() -> None:
    with simulated_host(vcpus=2) as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS)
        _, worker = family(host, process)
        for journal in (host.simulation.directory / "state").iterdir():
            journal.unlink()
        os.kill(worker, signal.SIGKILL)
        assert finished(process).code == 1
        assert_given_back(host)


def test_a_stderr_that_nobody_reads(tmp_path: Path) -> None:
    """It would fill with what is said of a policy that fails with a new text each time."""
    body = "raise ValueError('no ' * 1000 + str(time.monotonic()))"
    with simulated_host(vcpus=2, scenario="storm") as host:
        process = host.start("watch", "--domid", "1", "-e", "cr3,cpuid", "-p", policy(tmp_path, body))
        assert host.simulation.wait("answered", 3000)
        assert host.simulation.report()["answer_ns"]["max"] / 1e6 < DEADLINE + SLACK
        assert interrupted(process).code == 0
        host.assert_untouched()


def test_worker_stopped() -> None:
    with simulated_host(vcpus=2) as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS)
        _, worker = family(host, process)
        os.kill(worker, signal.SIGSTOP)
        outcome = finished(process)
        assert outcome.code == 1
        assert "SIGSTOP" in outcome.stderr
        assert_given_back(host)


@pytest.mark.parametrize("who", ["supervisor", "front", "job"])
def test_the_worker_ends_in_order_if_the_others_are_killed(who: str) -> None:
    with simulated_host(vcpus=2) as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS, process_group=0)
        supervisor, _ = family(host, process)
        if who == "job":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(supervisor if who == "supervisor" else process.pid, signal.SIGKILL)
        outcome = finished(process)
        assert outcome.code == (1 if who == "supervisor" else -signal.SIGKILL), outcome.stderr
        wait_for_end(host)
        assert "domain released" in outcome.stderr
        host.assert_untouched()


def test_all_killed_at_once_and_rescued_by_hand() -> None:
    with simulated_host(vcpus=2, scenario="storm") as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS)
        pids = (*family(host, process), process.pid)
        for pid in pids:  # stopped first: none sees another one die
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        finished(process)
        assert host.simulation.report()["stuck_vcpus"]
        outcome = host.run("rescue", "--domid", "1")
        assert outcome.code == 0, outcome.stderr
        assert_given_back(host)


@pytest.mark.parametrize(
    ("body", "words"),
    [("os._exit(0)", "ended with exit code 0"), ("ctypes.string_at(0)", "killed by SIGSEGV")],
)
def test_a_policy_that_ends_the_process(tmp_path: Path, body: str, words: str) -> None:
    with simulated_host(vcpus=2) as host:
        outcome = host.run("watch", "--domid", "1", "-e", EVENTS, "-p", policy(tmp_path, body))
        assert outcome.code == 1
        assert words in outcome.stderr
        assert_given_back(host)


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(10)",
        "while True: pass",
        "raise ValueError('no')",
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, -1)); [bytes(1 << 20) for _ in range(10**6)]",
        "sum(1 for _ in range(10**9))",
    ],
    ids=["sleeps", "loops", "raises", "allocates", "computes"],
)
def test_no_vcpu_waits_longer_than_the_deadline(tmp_path: Path, body: str) -> None:
    with simulated_host(vcpus=2) as host:
        process = host.start("watch", "--domid", "1", "-e", "cr3,cpuid", "-p", policy(tmp_path, body))
        assert host.simulation.wait("answered", 12)
        outcome = interrupted(process)
        assert outcome.code == 0, outcome.stderr
        assert "failed" in outcome.stderr
        longest = host.simulation.report()["answer_ns"]["max"] / 1e6
        assert longest < DEADLINE + SLACK
        host.assert_untouched()


@pytest.mark.parametrize("body", ["os.sys.exit(3)", "return 'deny'", "print('hello'); return 5"])
def test_a_policy_that_misbehaves_is_said(tmp_path: Path, body: str) -> None:
    with simulated_host() as host:
        path = policy(tmp_path, body)
        outcome = host.run("watch", "--domid", "1", "-e", "cr3", "-p", path, "-c", "5", "--format", "jsonl")
        assert outcome.code == 0
        assert [record["answer"] for record in outcome.records] == ["allow"] * 5, "only events on stdout"
        assert "the policy failed" in outcome.stderr
        host.assert_untouched()


def test_a_policy_that_hangs_does_not_outlast_the_duration(tmp_path: Path) -> None:
    with simulated_host() as host:
        path = policy(tmp_path, "while True: pass")
        outcome = host.run("watch", "--domid", "1", "-e", "cr3", "-p", path, "-t", "500ms")
        assert outcome.code == 0, outcome.stderr
        host.assert_untouched()


@pytest.mark.parametrize("text", ["0", "1ms", "100", "1h", "abc"])
def test_deadlines_that_are_none(text: str) -> None:
    with simulated_host() as host:
        outcome = host.run("watch", "--domid", "1", "-e", "cr3", "--deadline", text)
        assert outcome.code == 2
        assert len(outcome.error) == 3
        host.assert_untouched()


def test_a_shorter_deadline(tmp_path: Path) -> None:
    with simulated_host() as host:
        path = policy(tmp_path, "time.sleep(1)")
        outcome = host.run("watch", "--domid", "1", "-e", "cr3", "-p", path, "--deadline", "20ms", "-c", "20")
        assert "waited for the deadline (20 ms)" in outcome.stderr
        assert host.simulation.report()["answer_ns"]["p50"] / 1e6 < 20 + SLACK
        host.assert_untouched()


def test_a_policy_is_observed_unless_enforced(tmp_path: Path) -> None:
    path = tmp_path / "policy.py"
    tmp_path.chmod(0o755)
    path.write_text(
        "from xenintro.response import Response\n"
        "def decide(event, guest):\n"
        "    rip = event.registers.rip + event.insn_length\n"
        "    return Response.set_registers({'rax': 0x1234, 'rip': rip})\n"
    )
    with simulated_host() as host:
        args = ("watch", "--domid", "1", "-e", "cpuid", "-c", "3", "--format", "jsonl", "-p", str(path))
        observed, enforced = host.run(*args), host.run(*args, "--mode", "enforce")
        assert [(one["answer"], one.get("would")) for one in observed.records] == [
            ("allow", "set-registers")
        ] * 3, observed.stderr
        assert [one["answer"] for one in enforced.records] == ["set-registers"] * 3, enforced.stderr
        host.assert_untouched()


def test_stopped_before_anything_began() -> None:
    with simulated_host() as host:
        for delay in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3):
            process = host.start("watch", "--domid", "1", "-e", "cr3")
            time.sleep(delay)  # any instant will do
            outcome = interrupted(process, signal.SIGTERM)
            assert outcome.code in (0, -signal.SIGTERM), outcome.stderr
            assert "error" not in outcome.stderr
        host.assert_untouched()


def test_ctrl_z_and_fg() -> None:
    with simulated_host() as host:
        shell = pexpect.spawn(
            "/bin/bash",
            ["--norc", "--noprofile", "-i"],
            env=environment(**host.simulation.environment, PS1="$ ", TERM="xterm"),
            timeout=TIMEOUT,
            encoding="utf-8",
        )
        shell.sendline(f"{' '.join(COMMAND)} watch --domid 1 -e cr3,cpuid")
        shell.expect("write_ctrlreg")
        shell.send("\x1a")
        shell.expect("Stopped")
        before = host.simulation.report()["answered"]
        assert host.simulation.wait("answered", before + 100), "the guest is answered meanwhile"
        shell.sendline("fg")
        shell.expect("write_ctrlreg")
        shell.sendintr()
        shell.expect("domain released")
        shell.sendline("echo code $?")
        shell.expect("code 0")
        shell.close()
        host.assert_untouched()


def test_ctrl_s() -> None:
    """A terminal that takes nothing more: the guest does not notice."""
    with simulated_host(scenario="storm") as host:
        child = pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], "watch", "--domid", "1", "-e", "cr3,cpuid"],
            env=environment(**host.simulation.environment, TERM="xterm"),
            timeout=TIMEOUT,
            encoding="utf-8",
        )
        child.expect("write_ctrlreg")
        child.send("\x13")
        before = host.simulation.report()["answered"]
        assert host.simulation.wait("answered", before + 2000)
        assert host.simulation.report()["answer_ns"]["max"] / 1e6 < DEADLINE + SLACK
        child.send("\x11")
        child.sendintr()
        child.expect("domain released")
        child.read()
        child.close()
        assert child.exitstatus == 0
        host.assert_untouched()


def test_a_domain_that_dies_under_a_policy_that_hangs(tmp_path: Path) -> None:
    with simulated_host(vcpus=2) as host:
        path = policy(tmp_path, "while True: pass")
        process = host.start("watch", "--domid", "1", "-e", "cr3,cpuid", "-p", path)
        assert host.simulation.wait("answered", 4)
        host.simulation.control("destroy")
        outcome = finished(process)
        assert outcome.code == 9, outcome.stderr
        assert len(outcome.error) == 3, outcome.stderr
        assert host.simulation.wait("gone", timeout=10), "nobody holds its pages any more"
