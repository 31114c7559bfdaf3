"""The control socket, and the verb that speaks to it."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import xenintro
from tests.daemon.daemon import CONFIG, daemon

if TYPE_CHECKING:
    from pathlib import Path

DENY = """
from xenintro.response import Response
def decide(event, guest):
    return Response.deny() if event.reason == "mov_to_msr" else None
"""

MSR = CONFIG + 'msr = ["lstar"]\n[policy]\nfiles = ["deny.py"]\n'


def test_status_and_stats(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        status = service.eventually(lambda status: status["events"] > 100 and status["p99_ns"] > 0)
        assert status["domid"] == 1
        assert status["domain"] == status["service"] == "tiny"
        assert status["abi"] == "vm_event-7"
        assert status["mode"] == "observe"
        assert status["config"] == str(service.config)
        lines = service.ctl("status").stdout.splitlines()
        assert lines[0] == "watching tiny (domid 1)"
        assert any(line.split() == ["traps", "cr3,", "cpuid"] for line in lines)

        stats = service.ask("stats")
        assert set(stats["reasons"]) == {"write_ctrlreg", "cpuid"}
        assert stats["reasons"]["cpuid"]["p99_ns"] >= stats["reasons"]["cpuid"]["p50_ns"] > 0
        assert "write_ctrlreg" in service.ctl("stats").stdout


def test_mode(tmp_path: Path) -> None:
    """Observed answers are shown and not sent; enforced ones are."""
    (tmp_path / "deny.py").write_text(DENY)
    with daemon(tmp_path, MSR, abi="vm_event-5") as service:
        service.ready()
        with service.tail() as tail:
            stats = service.eventually_stats(lambda stats: stats["would"].get("deny", 0) > 5)
            assert "deny" not in stats["answers"]
            assert service.ask("mode", "enforce")["mode"] == "enforce"
            service.eventually_stats(lambda stats: stats["answers"].get("deny", 0) > 5)
            assert service.ask("mode", "observe")["mode"] == "observe"
            assert service.ask("reload")["mode"] == "observe"
            service.stop()
            lines = tail()

    msrs = [line for line in lines if line["reason"] == "mov_to_msr" and not line.get("late")]
    judged = [(line["answer"], line.get("would")) for line in msrs]
    while judged[-1] == ("allow", None):  # after SIGTERM policies are not asked any more
        judged.pop()
    assert set(judged) == {("allow", "deny"), ("deny", None)}


def test_tail_prints_what_watch_prints(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        with service.tail() as tail:
            service.eventually(lambda status: status["events"] > 200)
            service.stop()
            record = tail()[0]
        watch = ("watch", "--domid", "1", "-e", "cr3,cpuid", "-c", "5", "--format", "jsonl")
        watched = service.host.run(*watch).records
    assert list(record) in [list(line) for line in watched], "the same keys in the same order"


def test_a_reader_that_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    with daemon(tmp_path, scenario="storm", vcpus=2) as service:
        service.ready()
        with service.connect() as slow:
            slow.sendall(b'{"do":"tail"}\n')
            status = service.eventually(lambda status: status["tail_lines_dropped"] > 0, seconds=60)
            seen = status["events"]
            status = service.eventually(lambda status: status["events"] > seen + 100)
            assert status["deadline_missed"] == 0
            assert "lines were not sent" in service.ctl("status").stdout


@pytest.mark.parametrize(
    "request_line",
    [b"nonsense\n", b"[1]\n", b'{"do":"dance"}\n', b'{"do":"mode","mode":"off"}\n', b"\xff\n", b"{}\n"],
)
def test_bad_requests_are_answered(tmp_path: Path, request_line: bytes) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        with service.connect() as client:
            client.sendall(request_line)
            answer = json.loads(client.makefile().readline())
        assert answer["error"]["code"] == 2
        assert service.ask("status")["state"] == "watching"


def test_clients_that_misbehave(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        with service.connect() as client:
            client.sendall(b"x" * 10000)
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        with service.connect():
            pass  # asks nothing
        idle = [service.connect() for _ in range(15)]
        assert service.ask("status")["state"] == "watching"
        for client in idle:
            client.close()
        assert service.stop().code == 0


def test_only_this_user_may_ask(tmp_path: Path) -> None:
    with daemon(tmp_path) as service:
        service.ready()
        mode = (tmp_path / "run" / "tiny" / "control.sock").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


def test_no_service(tmp_path: Path) -> None:
    outcome = xenintro("ctl", "status", "--name", "tiny", XENINTRO_RUNTIME_DIR=str(tmp_path))
    assert outcome.code == 4
    assert outcome.error[0] == "error: no service for tiny runs"
    assert len(outcome.error) == 3
