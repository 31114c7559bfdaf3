"""The protocol with the service manager, on a real socket."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic_ns

import pytest

from tests.cli.simulated import finished
from tests.daemon.daemon import CONFIG, daemon, worker_of

STUCK = """
import time
def decide(event, guest):
    if event.reason == "cpuid":
        time.sleep(2.5)
"""


def test_order_of_what_is_told(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        ready = service.manager.wait_for("READY")
        assert ready["STATUS"].startswith("watching tiny (domid 1)"), "ready means being watched"
        assert service.host.simulation.control("state")["name"] == "tiny"
        service.manager.wait_for("WATCHDOG")
        status = service.manager.wait_for("STATUS", "watching tiny (domid 1): ")
        service.manager.wait(lambda message: "/s, p99 " in message.get("STATUS", ""))

        service.process.send_signal(signal.SIGHUP)
        reloading = service.manager.wait_for("RELOADING")
        now = monotonic_ns() // 1000
        assert now - 10_000_000 < int(reloading["MONOTONIC_USEC"]) <= now
        service.manager.wait_for("READY")

        outcome = service.stop()
        service.manager.wait_for("STOPPING")

    assert outcome.code == 0, outcome.stderr
    assert status
    keys = [next(iter(message)) for _, message in service.manager.messages]
    assert keys.index("READY") < keys.index("RELOADING") < keys.index("STOPPING")
    assert keys.count("READY") == 2


def test_abstract_socket(tmp_path: Path) -> None:
    with daemon(tmp_path, address=f"@xenintro-test-{os.getpid()}") as service:
        service.ready()


def test_an_idle_guest_is_ready_too(tmp_path: Path) -> None:
    with daemon(tmp_path, scenario="idle") as service:
        service.ready()
        assert service.ask("status")["events"] == 0
        service.manager.wait_for("WATCHDOG")


def test_a_domain_that_is_not_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    with daemon(tmp_path, CONFIG.replace("tiny", "absent")) as service:
        ready = service.manager.wait_for("READY")
        assert ready["STATUS"] == "waiting for absent"
        for _ in range(3):
            service.manager.wait_for("WATCHDOG")
        assert service.stop().code == 0


@pytest.mark.slow
def test_the_watchdog_is_fed_by_the_loop_alone(tmp_path: Path) -> None:
    """A policy that hangs stops it; the deadline lets the guest run on all the same."""
    policy = tmp_path / "stuck.py"
    with daemon(tmp_path, watchdog=0.4) as service:
        service.ready()
        policy.write_text(STUCK)
        service.config.write_text(CONFIG + '[policy]\nfiles = ["stuck.py"]\n[safety]\ndeadline = "50ms"\n')
        service.reload()
        service.manager.collect(1.0)
        before = service.host.retired()

        stuck = service.manager.collect(2.0)

        alive = [message for message in stuck if "WATCHDOG" in message]
        assert len(alive) <= 4, "a loop that comes round tells it every 100 ms"
        assert service.host.retired() > before, "the deadline thread answers meanwhile"


def test_the_loop_is_not_in_the_main_process(tmp_path: Path) -> None:
    """NotifyAccess=all in the unit: main, supervisor, worker."""
    with daemon(tmp_path) as service:
        service.ready()
        worker = worker_of(service.process.pid)
        assert service.ask("status")["pid"] == worker
        tasks = list(Path(f"/proc/{worker}/task").iterdir())
        assert len(tasks) == 2, "the loop and the deadline thread"


def test_a_killed_worker_is_a_failure_and_the_guest_runs_on(tmp_path: Path) -> None:
    with daemon(tmp_path, vcpus=2) as service:
        service.ready()
        os.kill(worker_of(service.process.pid), signal.SIGKILL)
        outcome = finished(service.process)
        assert outcome.code not in (0, 2, 3, 6, 8), "Restart=on-failure must restart it"
        service.assert_runs()
