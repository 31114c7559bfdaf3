"""The service over the life of its domain: reboots, reloads under load, the end."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import TIMEOUT
from tests.cli.simulated import finished
from tests.daemon.daemon import CONFIG, daemon, worker_of

if TYPE_CHECKING:
    from tests.daemon.daemon import Daemon

TIMES, ROUNDS = 50, 60

#: Ends by itself, as fast as the simulator can: what the guest did is known exactly.
LOAD = f"""
description = "a known number of events without pauses"
pace = 0
rounds = {ROUNDS}
waits = true
[[op]]
do = "cr3"
values = [0x102000, 0x103000]
times = {TIMES}
[[op]]
do = "cpuid"
leaves = [0, 1]
times = {TIMES}
[[op]]
do = "wrmsr"
msr = "lstar"
values = [0xffff800000109040, 0xffff800000109000]
times = {TIMES}
[[op]]
do = "write"
gfn = 0x400
pages = 16
times = {TIMES}
"""

MORE = 'msr = ["lstar"]\nmem = [{ access = "w", gfns = "0x400-0x40f" }]\n'
ONCHANGE = CONFIG + 'msr = [{ msr = "lstar", onchange = true }]\n'

SLEEPY = "def decide(event, guest):\n    return None\n"


@pytest.mark.slow
def test_rebooted_twenty_times(tmp_path: Path) -> None:
    with daemon(tmp_path, vcpus=2) as service:
        service.ready()
        simulation, domid = service.host.simulation, 1
        with service.tail() as tail:
            for _ in range(20):
                events = service.ask("status")["events"]
                service.eventually(lambda status, seen=events: status["events"] > seen + 20)
                domid = simulation.control("reboot", domid=domid)["domid"]
                service.eventually(lambda status, now=domid: status["domid"] == now)
            service.eventually(lambda status: status["attachments"] == 21)
            events = service.ask("status")["events"]
            service.eventually(lambda status: status["events"] > events + 20)

            outcome = service.stop()
            lines = tail()

        assert outcome.code == 0, outcome.stderr
        report = simulation.report()
        assert report["violations"] == []
        assert report["stuck_vcpus"] == []
        seen = Counter(line["domid"] for line in lines)
        assert len(seen) == 21, "events of every life"
        assert min(seen.values()) >= 20
        assert simulation.control("state", domid=domid)["ring"] is False


@pytest.mark.slow
@pytest.mark.parametrize("vcpus", [1, 4])
def test_reload_under_load_loses_no_event(tmp_path: Path, vcpus: int) -> None:
    """Traps, mode, policies change over and over; what stays asked for is seen to the last event."""
    scenario = tmp_path / "load.toml"
    scenario.write_text(LOAD)
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    configs = [
        CONFIG + MORE + '[policy]\nfiles = ["sleepy.py"]\n',
        ONCHANGE + '[policy]\nfiles = ["*.py"]\nmode = "enforce"\n',
        CONFIG + "[policy]\nmode = 'enforce'\n",
        CONFIG + "nonsense = 1\n",
        CONFIG + MORE,
    ]
    with daemon(tmp_path, CONFIG, vcpus=vcpus, scenario=str(scenario)) as service:
        reloads = 0
        service.ready()
        total = TIMES * ROUNDS * vcpus
        while _seen(service, "cpuid") < total:
            service.config.write_text(configs[reloads % len(configs)])
            service.reload()
            reloads += 1
        service.eventually(lambda status: _seen(service, "write_ctrlreg") == total)
        stats = service.ask("stats")
        status = service.ask("status")
        report = service.host.simulation.report()
        outcome = service.stop()
        after = service.host.simulation.report()

    assert outcome.code == 0, outcome.stderr
    assert reloads >= 2, "how many there are depends on the machine"
    assert stats["reasons"]["cpuid"]["count"] == total
    assert stats["reasons"]["write_ctrlreg"]["count"] == total
    assert 0 < stats["reasons"]["mov_to_msr"]["count"] < total, "asked for only now and then"
    assert report["events"] == report["answered"] == stats["events"]
    assert after["violations"] == []
    assert status["attachments"] == 1, "live"
    print(f"{vcpus} vCPUs: {reloads} reloads in {report['events']} events")


def test_every_line_reaches_a_tail_through_reloads(tmp_path: Path) -> None:
    with daemon(tmp_path, CONFIG) as service:
        service.ready()
        with service.tail() as tail:
            for number in range(10):
                service.config.write_text(CONFIG + ("int3 = true\n" if number % 2 else ""))
                service.reload()
            outcome = service.stop()
            lines = tail()
        report = service.host.simulation.report()

    assert outcome.code == 0, outcome.stderr
    assert len(lines) > 10
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[-1]["seq"] + 1))
    assert report["events"] == report["answered"]


def test_a_bad_reload_changes_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        service.config.write_text(CONFIG + "mrs = ['lstar']\n")
        service.reload()

        status = service.ask("status")
        assert "traps.mrs: unknown, did you mean msr?" in status["reload_error"]
        assert status["traps"] == ["cr3", "cpuid"]
        assert "failed: traps.mrs: unknown" in service.ctl("status").stdout
        refused = service.ctl("reload")
        assert refused.code == 2
        assert "did you mean msr?" in refused.stderr

        service.config.write_text(CONFIG + "mem = [{ access = 'w', gfns = '0xfffff0' }]\n")
        service.reload()
        assert "beyond the domain's memory" in service.ask("status")["reload_error"], "Xen's word counts too"

        service.config.write_text(CONFIG + "int3 = true\n")
        service.reload()
        status = service.ask("status")
        assert status["reload_error"] is None
        assert status["traps"] == ["cr3", "cpuid", "int3"]
        outcome = service.stop()
        assert outcome.code == 0
        assert outcome.stderr.count("the old settings stay in force") == 3
        service.host.assert_untouched()


@pytest.mark.parametrize("call", ["xc_monitor_software_breakpoint", "xc_set_mem_access", "xc_domain_pause"])
def test_traps_that_xen_refuses_change_nothing(tmp_path: Path, call: str) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        service.host.simulation.control("fault", fault={"call": call, "nth": 1, "errno": "ENOMEM"})
        service.config.write_text(CONFIG + "int3 = true\n" + MORE)
        service.reload()

        status = service.ask("status")
        assert status["reload_error"]
        assert status["traps"] == ["cr3", "cpuid"]
        assert {"software_breakpoint", "mov_to_msr"}.isdisjoint(
            service.host.simulation.control("state")["armed"]
        )
        service.eventually(lambda now: now["events"] > status["events"] + 100)

        service.reload()
        assert "int3" in service.ask("status")["traps"], "the fault is over"
        assert service.stop().code == 0
        service.host.assert_untouched()


def test_a_domain_that_is_not_unpaused_at_once_runs_on(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        service.fault("xc_domain_unpause", 1)
        service.config.write_text(CONFIG + "int3 = true\n")
        service.reload()

        status = service.ask("status")
        assert status["traps"] == ["cr3", "cpuid", "int3"]
        assert status["attachments"] == 1
        service.eventually(lambda now: now["events"] > status["events"] + 100)
        assert service.stop().code == 0
        service.host.assert_untouched()


@pytest.mark.parametrize("refused", [False, True])
def test_a_domain_that_stays_paused_is_given_back(tmp_path: Path, refused: bool) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        service.fault("xc_domain_unpause", 1, 2, 3)
        if refused:
            service.fault("xc_monitor_software_breakpoint", 1)
        service.config.write_text(CONFIG + "int3 = true\n")
        service.reload()

        status = service.eventually(lambda now: now["attachments"] == 2 and now["state"] == "watching")
        assert ("int3" in status["traps"]) != refused
        service.eventually(lambda now: now["events"] > status["events"] + 100)
        outcome = service.stop()
        assert outcome.code == 0
        assert "still paused" in outcome.stderr
        service.host.assert_untouched()


def test_old_traps_that_xen_refuses_too_are_armed_by_a_new_attachment(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        service.fault("xc_monitor_software_breakpoint", 1)
        service.fault("xc_monitor_cpuid", 2)
        service.config.write_text('[domain]\nname = "tiny"\n[traps]\ncr3 = true\nint3 = true\n')
        service.reload()

        status = service.eventually(lambda now: now["attachments"] == 2 and now["state"] == "watching")
        assert status["traps"] == ["cr3", "cpuid"]
        assert "xc_monitor_software_breakpoint" in status["reload_error"]
        cpuid = _seen(service, "cpuid")
        service.eventually(lambda _: _seen(service, "cpuid") > cpuid)
        assert service.stop().code == 0
        service.host.assert_untouched()


def test_rules_are_checked_for_the_xen_that_runs(tmp_path: Path) -> None:
    """next-interrupt came with interface version 2."""
    (tmp_path / "next.toml").write_text(
        '[[rule]]\nname = "next"\non = "write_ctrlreg"\nanswer = "next-interrupt"\n'
    )
    config = CONFIG.replace("cpuid", "int3")  # CPUID came later too
    with daemon(tmp_path, config, abi="vm_event-1") as service:
        service.ready()
        service.config.write_text(config + "[policy]\nfiles = ['next.toml']\n")
        refused = service.ctl("reload")
        assert refused.code == 2
        assert "next-interrupt is no answer to write_ctrlreg" in refused.stderr
        assert service.stop().code == 0


def test_a_policy_that_exits_changes_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
        service.config.write_text(CONFIG + "[policy]\nfiles = ['exits.py']\n")
        service.reload()
        assert "SystemExit" in service.ask("status")["reload_error"]
        assert service.stop().code == 0
        service.host.assert_untouched()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "singlestep = true\n"),
        ("singlestep = true\n", ""),
        ("", "interrupt = true\n"),
        ("", "[safety]\ndeadline = '100ms'\n"),
    ],
)
def test_what_cannot_change_live_attaches_anew(tmp_path: Path, before: str, after: str) -> None:
    with daemon(tmp_path, CONFIG + before, vcpus=2) as service:
        service.ready()
        service.config.write_text(CONFIG + after)
        service.reload()
        status = service.eventually(
            lambda status: status["attachments"] == 2 and status["state"] == "watching"
        )
        assert ("singlestep" in status["traps"]) == ("singlestep" in after)
        outcome = service.stop()
        assert outcome.code == 0, outcome.stderr
        service.host.assert_untouched()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_in_order(tmp_path: Path, number: int) -> None:
    with daemon(tmp_path, vcpus=4) as service:
        service.ready()
        service.process.send_signal(number)
        outcome = finished(service.process)
        assert outcome.code == 0, outcome.stderr
        service.host.assert_untouched()
        assert not (tmp_path / "run" / "tiny" / "control.sock").exists()


def test_signals_of_later_use_end_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        service.process.send_signal(signal.SIGUSR1)
        service.process.send_signal(signal.SIGUSR2)
        service.reload()
        assert service.process.poll() is None


@pytest.mark.parametrize("order", ["crash", "suspend"])
def test_a_domain_that_stands_is_waited_for(tmp_path: Path, order: str) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        service.host.simulation.control(order)
        status = service.eventually(lambda status: status["state"] == "waiting")
        assert status["domid"] is None
        assert service.stop().code == 0


def test_a_domain_that_resumes_is_watched_again(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        service.host.simulation.control("suspend")
        service.eventually(lambda status: status["state"] == "waiting")
        service.host.simulation.control("resume")
        service.eventually(lambda status: status["state"] == "watching")
        before = service.host.simulation.report()["answered"]
        assert service.host.simulation.wait("answered", before + 50)
        assert service.stop().code == 0
        service.host.assert_untouched()


def test_one_service_for_one_domain(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        second = finished(service._start("serve", "--config", str(service.config)))
        assert second.code == 5
        assert "a service for tiny runs already" in second.error[0]
        assert service.ask("status")["state"] == "watching"


def test_a_socket_left_by_a_killed_service_is_no_obstacle(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        worker = worker_of(service.process.pid)
        service.process.kill()
        finished(service.process)
        _ended(worker)
        service.host.assert_untouched()
        (tmp_path / "run" / "tiny" / "control.sock").touch()

        service.process = service._start("serve", "--config", str(service.config))
        service.manager.wait_for("READY", seconds=TIMEOUT)
        assert service.ask("status")["state"] == "watching"
        assert service.stop().code == 0


def _ended(pid: int) -> None:
    """Wait for the end of a process that is not ours."""
    until = monotonic() + TIMEOUT
    while Path(f"/proc/{pid}").exists():
        assert monotonic() < until, f"process {pid} does not end"
        sleep(0.01)


def _seen(service: Daemon, reason: str) -> int:
    count: int = service.ask("stats")["reasons"].get(reason, {}).get("count", 0)
    return count


def test_enforcing_arms_what_denials_need(tmp_path: Path) -> None:
    """Not before: from then on a register write waits for its answer."""
    deny = "from xenintro.response import Response\ndef decide(event, guest):\n    return Response.deny()\n"
    (tmp_path / "deny.py").write_text(deny)
    with daemon(tmp_path, CONFIG + "[policy]\nfiles = ['deny.py']\n") as service:
        service.ready()
        state = service.host.simulation.control
        assert not state("state")["control_registers"]
        assert service.ask("mode", "enforce")["mode"] == "enforce"
        assert state("state")["control_registers"]
        assert service.stop().code == 0
        service.host.assert_untouched()


def test_enforcing_is_refused_where_writes_cannot_be_denied(tmp_path: Path) -> None:
    (tmp_path / "may.py").write_text("def decide(event, guest):\n    return None\n")
    with daemon(tmp_path, CONFIG + "[policy]\nfiles = ['may.py']\n") as service:
        service.ready()
        service.host.simulation.control("fault", fault={"call": "xencall1", "errno": "EPERM"})
        refused = service.ctl("mode", "enforce")
        assert refused.code != 0
        assert "register writes cannot be denied here" in refused.stderr
        assert service.ask("status")["mode"] == "observe"
        assert service.stop().code == 0
        service.host.assert_untouched()
