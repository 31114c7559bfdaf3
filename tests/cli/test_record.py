"""``xenintro record``, ``watch -w``, ``demo -w`` on the simulator: everything is in the file."""

from __future__ import annotations

import os
import resource
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import TIMEOUT, xenintro
from tests.cli.simulated import Host, finished, interrupted, simulated_host
from tests.daemon.daemon import worker_of
from xenintro.capture import Capture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.answered import Answered

EVENTS = "mem:rwx@0x400-0x2fff,cr3,msr:lstar,cpuid,int3,guest-request"


@pytest.fixture
def host() -> Iterator[Host]:
    with simulated_host(vcpus=2, scenario="storm") as host:
        yield host


def read(path: Path) -> list[Answered]:
    with Capture(path) as capture:
        records = list(capture)
        assert capture.damage is None
        assert capture.totals is not None
        assert capture.totals.requests == len(records)
    return records


def test_everything_on_the_ring_is_in_the_file(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "all.pcapng"
    outcome = host.run("record", "--domid", "1", "-e", EVENTS, "-c", "400", "-w", str(path))
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == ""
    records = read(path)
    report = host.simulation.report()
    assert len(records) == report["events"] == report["answered"]
    assert {one.answer for one in records} <= {"allow", "plain"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"wrote {path}  " in outcome.stderr
    assert f"next: xenintro inspect {path}" in outcome.stderr
    host.assert_untouched()


def test_what_the_capture_says_of_itself(host: Host, tmp_path: Path) -> None:
    policy = tmp_path / "allow.py"
    policy.write_text("def decide(event, guest):\n    return None\n")
    path = tmp_path / "info.pcapng"
    host.run("record", "-d", "1", "-e", "cr3", "-c", "3", "-p", str(policy), "-w", str(path))
    with Capture(path) as capture:
        info = capture.info
    assert (info.abi, info.domid, info.domain, info.nr_vcpus) == ("vm_event-7", 1, "tiny", 2)
    assert (info.events, info.mode, info.deadline) == ("cr3", "observe", 0.25)
    assert list(info.policies) == [str(policy)]
    assert len(info.policies[str(policy)]) == 64
    assert info.xen is not None
    assert info.xen.startswith("4.17")
    assert "record" in info.command
    assert abs(info.started_ns - time.time_ns()) < 600e9


def test_what_is_printed_is_in_the_file_too(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "both.pcapng"
    outcome = host.run("watch", "-d", "1", "-e", EVENTS, "-c", "50", "--format", "jsonl", "-w", str(path))
    again = xenintro("watch", "-r", str(path), "-c", "50", "--format", "jsonl")
    assert again.stdout == outcome.stdout != ""


def test_ctrl_c_and_sigterm_close_the_file(host: Host, tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        path = tmp_path / f"{number}.pcapng"
        process = host.start("record", "-d", "1", "-e", "cr3", "-w", str(path))
        assert host.simulation.wait("answered", host.simulation.report()["answered"] + 100)
        assert interrupted(process, number).code == 0
        assert len(read(path)) >= 100
    host.assert_untouched()


def test_the_default_name_says_domain_and_time(host: Host, tmp_path: Path) -> None:
    process = host.start("record", "-d", "1", "-e", "cr3", "-c", "3", cwd=tmp_path)
    assert finished(process).code == 0
    (path,) = tmp_path.iterdir()
    assert path.match("tiny-2*-*Z.pcapng")


def test_rotated_kept_and_compressed(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "ring.pcapng.zst"
    outcome = host.run(
        *("record", "-d", "1", "-e", "cr3", "-c", "400", "-w", str(path)),
        *("--rotate", "40kB", "--keep", "4"),
    )
    assert outcome.code == 0, outcome.stderr
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    assert all(file.match("ring-*Z*.pcapng.zst") for file in files)
    assert sum(len(read(file)) for file in files) < 400
    assert "wrote 4 files, the last is" in outcome.stderr
    host.assert_untouched()


def test_ctrl_c_again_leaves_it_uncompressed(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "long.pcapng.gz"
    process = host.start("record", "-d", "1", "-e", "cr3", "-w", str(path))
    assert host.simulation.wait("answered", 50)
    packer = next(pid for pid in children(worker_of(process.pid)))
    os.kill(packer, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith(b"  compressing"):
        assert line
    process.send_signal(signal.SIGINT)
    outcome = finished(process)
    assert outcome.code == 0
    assert "not compressed" in outcome.stderr
    assert f"wrote {tmp_path}/long.pcapng  " in outcome.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "long.pcapng"]
    assert read(tmp_path / "long.pcapng")
    host.assert_untouched()


@pytest.mark.parametrize("name", ["held.pcapng", "held.pcapng.gz"])
def test_ctrl_c_held_down_leaves_a_whole_file(host: Host, tmp_path: Path, name: str) -> None:
    process = host.start("record", "-d", "1", "-e", "cr3", "-w", str(tmp_path / name))
    assert host.simulation.wait("answered", 50)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)  # as a keyboard repeats a key
    outcome = finished(process)
    assert outcome.code == 0
    assert "Traceback" not in outcome.stderr
    assert all(read(path) for path in tmp_path.iterdir())
    host.assert_untouched()


def test_what_was_answered_though_attaching_failed_is_in_the_file(tmp_path: Path) -> None:
    """The traps are on, and the guest runs; that it does Xen denies."""
    fault = {"call": "xc_domain_unpause", "errno": "EIO", "after": True}
    with simulated_host(vcpus=2, scenario="storm", faults=[fault]) as host:
        path = tmp_path / "some.pcapng"
        outcome = host.run("record", "-d", "1", "-e", "cr3,cpuid", "-w", str(path))
        assert outcome.code == 1
        assert "recorded what it had not" not in outcome.stderr
        if path.exists():  # else nothing was answered, or what was its supervisor answered
            assert read(path)
        host.assert_untouched()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_nobody_who_reads_stderr_is_no_reason_not_to_close_it(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "unread.pcapng.gz"
    process = host.start("record", "-d", "1", "-e", "cr3", "-w", str(path))
    assert host.simulation.wait("answered", 50)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 0
    assert len(read(path)) >= 50
    host.assert_untouched()


def test_quiet_process(host: Host, tmp_path: Path) -> None:
    """The process that owns the ring has two threads, the loop's and the deadline's, recording or not."""
    path = tmp_path / "quiet.pcapng.gz"
    process = host.start("record", "-d", "1", "-e", "cr3", "-w", str(path), "--rotate", "40kB", "--keep", "2")
    assert host.simulation.wait("answered", 200)
    worker = worker_of(process.pid)
    assert len(list(Path(f"/proc/{worker}/task").iterdir())) == 2
    (packer,) = children(worker)
    deadline = time.monotonic() + TIMEOUT
    while os.getpriority(os.PRIO_PROCESS, packer) != 19:
        assert time.monotonic() < deadline
    files = {str(path.readlink()) for path in Path(f"/proc/{packer}/fd").iterdir()}
    assert not any(name.startswith(("/dev/xen", "socket:", "/memfd")) for name in files), files
    assert interrupted(process).code == 0


def test_a_full_disk_ends_it_in_order(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "full.pcapng"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    process = host.start("watch", "-d", "1", "-e", "cr3", "-w", str(path), preexec_fn=limited)
    outcome = finished(process)
    assert outcome.code == 1
    assert outcome.error[0] == f"error: cannot write {path}"
    assert outcome.error[1].strip() == "File too large"
    with Capture(path) as capture:
        assert len(list(capture)) > 50
        assert capture.damage is None
    host.assert_untouched()


def test_a_file_that_is_removed_ends_it_in_order(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "gone.pcapng"
    process = host.start("record", "-d", "1", "-e", "cr3", "-w", str(path))
    assert host.simulation.wait("answered", 10)
    path.unlink()
    outcome = finished(process)
    assert outcome.code == 1
    assert outcome.error[0] == f"error: {path} was removed while it was written"
    host.assert_untouched()


def test_nothing_is_touched_where_nothing_can_be_written(host: Host, tmp_path: Path) -> None:
    there = tmp_path / "there.pcapng"
    there.write_text("precious")
    for args, code, says in (
        (("-w", str(there)), 2, "exists"),
        (("-w", str(tmp_path / "no" / "x")), 1, "cannot write"),
        (("-w", "-"), 2, "stdout"),
        (("-w", str(tmp_path / "x"), "--keep", "3"), 2, "--keep without --rotate"),
        (("-w", str(tmp_path / "x"), "--rotate", "3"), 2, "not when to rotate"),
    ):
        outcome = host.run("record", "-d", "1", "-e", "cr3", *args)
        assert (outcome.code, len(outcome.error)) == (code, 3), outcome.stderr
        assert says in outcome.error[0]
    assert there.read_text() == "precious"
    assert host.simulation.report()["events"] == 0
    assert host.run("record", "-d", "1", "-e", "cr3", "-c", "1", "-w", str(there), "--force").code == 0
    assert len(read(there)) >= 1


def test_a_domain_that_cannot_be_watched_leaves_no_file(host: Host, tmp_path: Path) -> None:
    busy = host.start("watch", "-d", "1", "-e", "cr3")
    assert host.simulation.wait("answered", 1)
    for domid in ("1", "77"):
        assert host.run("record", "-d", domid, "-w", str(tmp_path / "x.pcapng.gz")).code in (4, 5)
    assert list(tmp_path.iterdir()) == []
    interrupted(busy)


def test_watch_records_only_when_told_where() -> None:
    outcome = xenintro("watch", "-d", "1", "--rotate", "1MB")
    assert outcome.code == 2
    assert outcome.error[0] == "error: nothing is recorded"


def test_demo_records(tmp_path: Path) -> None:
    path = tmp_path / "demo.pcapng.gz"
    outcome = xenintro("demo", "-c", "3", "--format", "jsonl", "-w", str(path))
    assert outcome.code == 0, outcome.stderr
    assert len(read(path)) >= 3 == len(outcome.records)


def test_a_killed_worker_loses_nothing_that_it_answered(host: Host, tmp_path: Path) -> None:
    """Its supervisor writes what it had not: a policy counts what was decided about."""
    policy, count = tmp_path / "count.py", tmp_path / "count"
    policy.write_text(
        f"import os\nfd = os.open({str(count)!r}, os.O_WRONLY | os.O_CREAT)\n"
        "def decide(event, guest):\n    os.write(fd, b'.')\n"
    )
    for turn in range(5):
        path = tmp_path / f"{turn}.pcapng"
        count.unlink(missing_ok=True)
        process = host.start("record", "-d", "1", "-e", "cr3", "-p", str(policy), "-w", str(path))
        assert host.simulation.wait("answered", host.simulation.report()["answered"] + 100)
        os.kill(worker_of(process.pid), signal.SIGKILL)
        outcome = finished(process)
        assert outcome.code == 1
        with Capture(path) as capture:
            records = list(capture)
            assert capture.damage is None
        decided = count.stat().st_size
        # What was on the ring and not decided on is there too; a ring has eight slots.
        assert decided <= len(records) <= decided + 8
    host.assert_untouched()


def test_everything_killed_at_once_leaves_a_file_that_can_be_read(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "killed.pcapng"
    process = host.start("record", "-d", "1", "-e", "cr3", "-w", str(path))
    assert host.simulation.wait("answered", 100)
    worker = worker_of(process.pid)
    for pid in (process.pid, int(Path(f"/proc/{worker}/stat").read_text().split()[3]), worker):
        os.kill(pid, signal.SIGKILL)
    finished(process)
    with Capture(path) as capture:
        assert len(list(capture)) >= 50  # all but what was answered in the last milliseconds
    assert host.run("rescue", "-d", "1").code == 0
