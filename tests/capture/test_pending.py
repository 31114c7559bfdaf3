"""What was answered and not yet recorded when a process is killed is recorded by another."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.capture.making import CR3, V7, answered, info_of
from xenintro.abi import INTERFACE_IDS, interface
from xenintro.capture import Capture, CaptureWriter
from xenintro.capture.pending import Pending
from xenintro.capture.recording import Recording

if TYPE_CHECKING:
    from pathlib import Path

    from xenintro.answered import Answered

ONE = answered()


def noted(pending: Pending, one: Answered) -> None:
    pending.taken(one.event.raw, one.taken_ns)
    pending.answering(one.event.raw, one.taken_ns, one.response, one.answer)


def read(path: Path) -> list[Answered]:
    with Capture(path) as capture:
        records = list(capture)
        assert capture.damage is None
    return records


@pytest.mark.parametrize("abi", INTERFACE_IDS)
def test_what_was_answered_is_recorded(tmp_path: Path, abi: str) -> None:
    layout = interface(abi)
    one = answered(bytes(layout.slot_size), layout)
    pending = Pending()
    writer = CaptureWriter(tmp_path / "p.pcapng", info_of(layout))
    pending.follow(writer)
    for _ in range(3):
        noted(pending, one)
    assert pending.recover() == (tmp_path / "p.pcapng", 3)
    assert pending.recover() is None
    records = read(tmp_path / "p.pcapng")
    assert [(two.event, two.answer, two.response) for two in records] == [
        (one.event, "allow", one.response)
    ] * 3


def test_the_last_request_of_a_policy_that_crashed_is_there_without_an_answer(tmp_path: Path) -> None:
    pending = Pending()
    pending.follow(CaptureWriter(tmp_path / "p.pcapng", info_of()))
    noted(pending, ONE)
    pending.taken(CR3, 2_000)
    pending.recover()
    assert [one.answer for one in read(tmp_path / "p.pcapng")] == ["allow", "unanswered"]


def test_a_write_that_was_cut_short_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.pcapng"
    pending = Pending()
    recording = Recording(path, pending=pending)
    recording.begin(info_of())
    recording.write([ONE])
    size = path.stat().st_size
    noted(pending, ONE)
    noted(pending, ONE)
    recording._writer.write([ONE, ONE])  # type: ignore[union-attr]
    os.truncate(path, size + 100)
    assert pending.recover() == (path, 2)
    assert len(read(path)) == 3


def test_nothing_is_recorded_twice(tmp_path: Path) -> None:
    path = tmp_path / "p.pcapng"
    pending = Pending()
    recording = Recording(path, pending=pending)
    recording.begin(info_of())
    noted(pending, ONE)
    recording.write([ONE])
    assert pending.recover() is None
    noted(pending, ONE)
    recording.finish()
    assert pending.recover() is None
    assert len(read(path)) == 1


def test_more_than_there_is_room_for(tmp_path: Path) -> None:
    pending = Pending()
    for _ in range(3000):  # nobody records
        noted(pending, ONE)
    assert pending.recover() is None
    pending.follow(CaptureWriter(tmp_path / "p.pcapng", info_of()))
    noted(pending, ONE)
    for _ in range(3000):
        noted(pending, ONE._replace(response=bytes(V7.slot_size)))
    assert pending.recover() == (tmp_path / "p.pcapng", 1024)
    assert len(read(tmp_path / "p.pcapng")) == 1024


def test_a_capture_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    pending = Pending()
    pending.follow(CaptureWriter(tmp_path / "p.pcapng", info_of()))
    noted(pending, ONE)
    (tmp_path / "p.pcapng").unlink()
    with pytest.raises(FileNotFoundError):
        pending.recover()


def test_killed_between_any_two_steps(tmp_path: Path) -> None:
    """A child records and is killed after a number of steps; what it had taken is in the file, once."""
    for steps in range(40):
        path = tmp_path / f"{steps}.pcapng"
        pending = Pending()
        child = os.fork()
        if child == 0:
            try:
                _record_until(steps, path, pending)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        pending.recover()
        if steps:
            with Capture(path) as capture:
                offset_ns = capture.info.started_ns - capture.info.monotonic_ns
                times = [one.taken_ns - offset_ns for one in capture]
            assert times == list(range(len(times)))
            whole, rest = divmod(steps - 1, 5)
            assert len(times) == 2 * whole + (rest >= 1) + (rest >= 3)


def _record_until(steps: int, path: Path, pending: Pending) -> None:
    """Batches of two; a step is opening, then taking or answering one, or writing both."""
    left = iter(range(steps))

    def step() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    step()
    recording = Recording(path, pending=pending)
    recording.begin(info_of())
    now = 0
    while True:
        batch = []
        for _ in range(2):
            one = answered(taken_ns=now)
            step()
            pending.taken(one.event.raw, now)
            step()
            pending.answering(one.event.raw, now, one.response, "allow")
            batch.append(one)
            now += 1
        step()
        recording.write(batch)
