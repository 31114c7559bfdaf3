"""A monitor dies, at any instant and of any make; one command brings the guest back."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.runner import TIMEOUT, environment
from tests.cli.simulated import Host, finished, simulated_host

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS = "mem:w@0x400-0x23ff:step,cr3,msr:lstar,cpuid,int3,guest-request"
XEN_ACCESS = Path("/usr/lib/xen-4.17/bin/xen-access")

#: What a dead monitor's ring and vCPUs look like to the simulator; a rescue breaks no rule.
OF_THE_DEAD = {
    *("ring-left", "requests-unanswered", "vcpu-left-frozen", "domain-left-paused", "effects-lost"),
    "traps-left",
}

#: Calls at which the watcher dies: which one of its calls of that name.
AT_ATTACH = [
    ("xc_domain_pause", 1),
    ("xc_monitor_enable", 1),
    ("xenevtchn_bind_interdomain", 1),
    ("xc_monitor_singlestep", 1),
    ("xc_set_mem_access", 1),
    ("xc_monitor_write_ctrlreg", 1),
    ("xc_monitor_guest_request", 1),
    ("xc_domain_unpause", 1),
]
IN_THE_LOOP = [("xenevtchn_notify", 20), ("xc_hvm_inject_trap", 2), ("xc_set_mem_access", 6)]
AT_THE_END = [
    ("xc_monitor_cpuid", 2),
    ("xc_monitor_singlestep", 2),
    ("xc_domain_pause", 2),
    ("xc_domain_debug_control", 1),
    ("xc_vcpu_getinfo", 1),
    ("xc_domain_unpause", 2),
    ("xc_monitor_disable", 1),
    ("xenevtchn_unbind", 1),
]
DEATHS = [*AT_ATTACH, *IN_THE_LOOP, *AT_THE_END]


def killed_at(call: str, nth: int, *, after: bool = False) -> dict[str, object]:
    return {"call": call, "nth": nth, "action": "kill-client", "after": after}


def program(host: Host, module: str, *args: str, **popen: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *args],
        env=environment(**host.simulation.environment),
        stderr=subprocess.PIPE,
        **popen,
    )


def watcher(host: Host, events: str = EVENTS, limit: int = 10**9) -> subprocess.Popen[bytes]:
    return program(host, "tests.cli.bare_watcher", events, str(limit))


def killed(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=TIMEOUT)


def kill_in_the_loop(host: Host, events: str = EVENTS) -> None:
    process = watcher(host, events)
    try:
        assert host.simulation.wait("answered", 100)
    finally:
        killed(process)


def assert_given_back(host: Host) -> None:
    """Nothing is left of any monitor, and every vCPU runs."""
    state = host.simulation.control("state")
    assert not state["ring"]
    assert state["armed"] == []
    assert state["pauses"] == 0
    assert not state["access_required"]
    assert state["default_access"] == 7
    assert state["restricted"] == []
    assert not state["altp2m"]
    assert not any(vcpu["single_step"] or vcpu["view"] for vcpu in state["vcpus"])
    report = host.simulation.report()
    assert report["stuck_vcpus"] == []
    assert {entry["rule"] for entry in report["violations"]} <= OF_THE_DEAD
    before = host.retired()
    assert host.simulation.wait("retired", max(before) + 100, timeout=20), "the guest does not run"
    assert journals(host) == []


def journals(host: Host) -> list[Path]:
    return sorted((host.simulation.directory / "state").glob("*"))


@pytest.fixture
def host() -> Iterator[Host]:
    with simulated_host(vcpus=2, scenario="storm") as host:
        yield host


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("call", "nth"), DEATHS)
def test_killed_at_any_call(call: str, nth: int, after: bool) -> None:
    with simulated_host(vcpus=2, scenario="storm", faults=[killed_at(call, nth, after=after)]) as host:
        process = watcher(host, limit=300)
        _, said = process.communicate(timeout=TIMEOUT)
        assert process.returncode == -signal.SIGKILL, said.decode()
        outcome = host.run("rescue", "--domid", "1")
        assert outcome.code == 0, outcome.stderr
        assert_given_back(host)


@pytest.mark.parametrize(("abi", "vendor"), [("vm_event-1-4.6", "intel"), ("vm_event-4", "amd")])
def test_other_releases(abi: str, vendor: str) -> None:
    with simulated_host(vcpus=2, scenario="storm", abi=abi, vendor=vendor) as host:
        kill_in_the_loop(host, "cr3,msr:lstar,int3")
        outcome = host.run("rescue", "--domid", "1")
        assert outcome.code == 0, outcome.stderr
        assert_given_back(host)


def test_it_says_what_it_did_and_does_it_only_once(host: Host) -> None:
    kill_in_the_loop(host)
    first = host.run("rescue", "--domid", "1")
    assert first.code == 0
    assert "2 of 2 vCPUs stood still and run again; tiny (domid 1) was given back" in first.stderr
    assert "8192 pages open again" in first.stderr
    second = host.run("rescue", "--domid", "1")
    assert second.code == 0
    assert "needed no rescue" in second.stderr
    assert_given_back(host)


def test_where_nothing_is_needed_nothing_is_touched(host: Host) -> None:
    outcome = host.run("rescue", "--name", "tiny", "--if-needed")
    assert (outcome.code, outcome.stderr) == (0, "")
    host.assert_untouched()
    assert journals(host) == []


def test_if_needed_does_it(host: Host) -> None:
    kill_in_the_loop(host)
    assert host.run("rescue", "--name", "tiny", "--if-needed").code == 0
    assert_given_back(host)


def test_whoever_is_alive_is_left_alone(host: Host) -> None:
    process = watcher(host)
    try:
        assert host.simulation.wait("answered", 100)
        for verb in ("rescue", "watch"):
            outcome = host.run(verb, "--domid", "1")
            assert outcome.code == 5
            assert outcome.error[0] == "error: tiny (domid 1) is busy"
            assert str(process.pid) in outcome.error[1]
        answered = host.simulation.report()["answered"]
        assert host.simulation.wait("answered", answered + 100), "it goes on"
    finally:
        killed(process)


@pytest.mark.slow
@pytest.mark.parametrize(
    "call", ["xc_domain_pause", "xc_monitor_disable", "xc_monitor_enable", "xenevtchn_notify"]
)
@pytest.mark.parametrize("nth", [1, 2])
def test_a_rescue_that_is_killed_is_done_by_the_next(host: Host, call: str, nth: int) -> None:
    kill_in_the_loop(host)
    host.simulation.control("fault", fault=killed_at(call, nth, after=True))
    assert host.run("rescue", "--domid", "1").code == -signal.SIGKILL
    assert host.run("rescue", "--domid", "1").code == 0
    assert_given_back(host)


def test_a_watch_is_refused_until_the_rescue(host: Host) -> None:
    kill_in_the_loop(host)
    outcome = host.run("watch", "--domid", "1")
    assert outcome.code == 5
    assert outcome.error[2].endswith("xenintro rescue --domid 1")
    assert host.run("rescue", "--domid", "1").code == 0
    assert host.run("watch", "--domid", "1", "-e", "cr3", "-c", "10").code == 0
    assert_given_back(host)


def test_what_somebody_else_paused_stays_paused(host: Host) -> None:
    host.simulation.control("pause")
    process = watcher(host)
    assert host.simulation.wait("attached")
    killed(process)
    assert host.run("rescue", "--domid", "1").code == 0
    assert host.simulation.control("state")["pauses"] == 1
    host.simulation.control("unpause")
    assert_given_back(host)


def test_a_journal_of_a_past_life_is_not_undone(host: Host) -> None:
    kill_in_the_loop(host)
    (left,) = journals(host)
    domid = host.simulation.control("reboot")["domid"]
    outcome = host.run("watch", "--domid", str(domid), "-e", "cr3", "-c", "10")
    assert outcome.code == 0, outcome.stderr
    assert not left.exists()


def test_a_journal_of_a_past_life_is_no_sign_of_death(host: Host) -> None:
    kill_in_the_loop(host)
    domid = host.simulation.control("reboot")["domid"]
    outcome = host.run("rescue", "--domid", str(domid), "--if-needed")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert journals(host) == []


@pytest.mark.parametrize(("options", "code"), [((), 4), (("--if-needed",), 0)])
def test_a_domain_that_is_gone_needs_nothing(host: Host, options: tuple[str, ...], code: int) -> None:
    kill_in_the_loop(host)
    host.simulation.control("destroy")
    assert host.simulation.wait("gone", timeout=10)
    assert host.run("rescue", "--domid", "1", *options).code == code
    assert journals(host) == []


@pytest.mark.parametrize("how", ["crash", "shutdown"])
def test_a_domain_that_died_is_said_to_have_died(host: Host, how: str) -> None:
    kill_in_the_loop(host)
    host.simulation.control(how)
    outcome = host.run("rescue", "--domid", "1")
    assert outcome.code == 9, outcome.stderr
    assert outcome.error[0] == f"error: tiny {'crashed' if how == 'crash' else 'powered off'}"
    assert not host.simulation.control("state")["ring"]
    assert journals(host) == []


def test_a_domain_that_dies_during_the_rescue(host: Host) -> None:
    kill_in_the_loop(host)
    host.simulation.control("forget-faults")
    last = {"call": "xc_monitor_disable", "nth": 3, "after": True, "order": {"do": "destroy"}}
    host.simulation.control("fault", fault=last)
    outcome = host.run("rescue", "--domid", "1")
    assert outcome.code == 9, outcome.stderr
    assert outcome.error[0] == "error: tiny was destroyed"
    assert journals(host) == []


@pytest.mark.parametrize("call", ["xc_monitor_enable", "xenevtchn_bind_interdomain"])
def test_a_supervisor_knows_that_its_worker_is_dead(call: str) -> None:
    """Whoever else looks like a monitor: here somebody who has mapped a page of the guest."""
    with simulated_host(vcpus=2, scenario="storm", faults=[killed_at(call, 1, after=True)]) as host:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with program(host, "tests.cli.kept_ring", **streams) as bystander:
            assert bystander.stdout is not None
            assert bystander.stdout.readline() == b"kept\n"
            try:
                outcome = host.run("watch", "--domid", "1", "-e", EVENTS)
                assert outcome.code == 1
                assert "tiny (domid 1) was given back" in outcome.error[2]
                assert_given_back(host)
            finally:
                killed(bystander)


def full_disk(pid: int = 0) -> None:
    """Let a process write to no file any more."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))


def test_a_watcher_that_cannot_keep_its_journal_gives_back(host: Host) -> None:
    process = watcher(host)
    try:
        assert host.simulation.wait("answered", 100)
        full_disk(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    finally:
        killed(process)
    assert_given_back(host)


@pytest.mark.parametrize("journal", [True, False], ids=["left", "lost"])
def test_a_rescue_that_cannot_keep_a_journal_rescues(host: Host, journal: bool) -> None:
    kill_in_the_loop(host)
    if not journal:
        journals(host)[0].unlink()
    with host.start("rescue", "--domid", "1", preexec_fn=full_disk) as process:
        outcome = finished(process)
    assert outcome.code == 0, outcome.stderr
    assert "no journal is kept" in outcome.stderr
    assert "was given back" in outcome.stderr
    assert_given_back(host)


def full_ring(host: Host) -> None:
    """A watcher that answers nothing, and is killed when vCPUs sleep inside Xen."""
    process = watcher(host, "cpuid")
    try:
        assert host.simulation.wait("answered", 100)
        process.send_signal(signal.SIGSTOP)
        assert host.simulation.wait("asleep", 2)
    finally:
        killed(process)


def test_a_full_ring_that_nobody_has_is_said_plainly() -> None:
    with simulated_host(vcpus=12, scenario="storm") as host:
        full_ring(host)
        outcome = host.run("rescue", "--domid", "1")
        assert outcome.code == 10
        assert "vCPUs sleep inside Xen" in outcome.error[1]
        assert outcome.error[2] == "  only destroying it helps: xl destroy 1"
        assert host.simulation.control("state")["pauses"] == 0


def test_a_full_ring_whose_page_was_kept() -> None:
    with simulated_host(vcpus=12, scenario="storm") as host:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        keeping = program(host, "tests.cli.kept_ring", **streams)
        assert keeping.stdout is not None
        assert keeping.stdout.readline() == b"kept\n"
        full_ring(host)
        said, complaints = keeping.communicate(b"dead\n", timeout=TIMEOUT)
        assert said.startswith(b"True tiny (domid 1) was given back"), complaints.decode()
        assert_given_back(host)
        assert host.simulation.report()["violations"] == [], "every request was answered"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("fork", ["os.fork", "ctypes.CDLL(None).fork"])
def test_a_child_of_the_policy_keeps_the_event_channel(tmp_path: Path, fork: str) -> None:
    """The C library's fork tells Python nothing: the child keeps what the worker had open."""
    tmp_path.chmod(0o755)
    path = tmp_path / "policy.py"
    path.write_text(
        "import ctypes, os, signal\nchild = None\n"
        "def decide(event, guest):\n"
        "    global child\n"
        f"    if child is None and (child := {fork}()) == 0:\n"
        "        signal.pause()\n"
    )
    with simulated_host(vcpus=12, scenario="storm") as host:
        watching = host.start("watch", "--domid", "1", "-q", "-e", EVENTS, "-p", str(path))
        assert host.simulation.wait("answered", 100)
        (supervisor,) = children(watching.pid)
        (worker,) = children(supervisor)
        (child,) = children(worker)
        try:
            os.kill(worker, signal.SIGKILL)
            assert watching.wait(TIMEOUT) == 1
            assert_given_back(host)
            assert host.simulation.report()["violations"] == [], "every request was answered"
        finally:
            os.kill(child, signal.SIGKILL)
        assert "was given back" in finished(watching).stderr


@pytest.mark.skipif(not XEN_ACCESS.exists(), reason="xen-access 4.17 is not installed (xen-utils-4.17)")
class TestXenAccess:
    """Another make of monitor, which keeps no journal."""

    @staticmethod
    def start(host: Host, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [XEN_ACCESS, *args],
            env={**os.environ, **host.simulation.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    @pytest.mark.parametrize(
        "args", [("1", "cpuid"), ("-m", "1", "write"), ("1", "altp2m_write"), ("1", "debug")]
    )
    def test_killed(self, host: Host, args: tuple[str, ...]) -> None:
        process = self.start(host, *args)
        try:
            assert host.simulation.wait("answered", 100)
        finally:
            killed(process)
        outcome = host.run("rescue", "--domid", "1")
        assert outcome.code == 0, outcome.stderr
        assert "was given back" in outcome.stderr
        assert_given_back(host)

    def test_alive(self, host: Host) -> None:
        process = self.start(host, "1", "cpuid")
        try:
            assert host.simulation.wait("answered", 100)
            outcome = host.run("rescue", "--domid", "1")
            assert outcome.code == 5
            assert f"xen-access (process {process.pid})" in outcome.error[1]
            assert host.simulation.control("state")["ring"]
            assert host.run("rescue", "--domid", "1", "--force").code == 0
        finally:
            killed(process)


def test_a_watcher_whose_pipe_is_closed_leaves_no_journal(host: Host) -> None:
    process = host.start("watch", "--domid", "1", "-e", "cr3", "-c", "20")
    assert finished(process).code == 0
    assert_given_back(host)
