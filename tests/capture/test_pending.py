"""What was answered and not yet recorded when a process is killed is recorded by another."""

from __future__ import annotations

import mmap
import os
import signal
import struct
from time import monotonic_ns
from typing import TYPE_CHECKING

import pytest

from tests.capture.making import V7, answered, info_of
from tests.slots import make_slot
from xenintro.abi import INTERFACE_IDS, Flag, Interface, interface
from xenintro.capture import Capture, CaptureWriter
from xenintro.capture.pending import Pending, Recovered
from xenintro.capture.recording import Recording
from xenintro.codec import acknowledge, encode
from xenintro.response import Response
from xenintro.xen.guard import Guard
from xenintro.xen.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xenintro.answered import Answered


class Watched:
    """A ring whose answers are noted, and Xen's side of its page."""

    def __init__(self, pending: Pending, layout: Interface = V7) -> None:
        self.layout = layout
        self.page = mmap.mmap(-1, 4096)
        self.ring = Ring(self.page, layout.slot_size, layout.nr_slots)
        self.ring.init()
        self.ring.record(pending.record)
        self.guard = Guard(self.ring, layout, deadline=0.01)
        self._req_prod = 0

    def post(self, raw: bytes) -> None:
        """What Xen does."""
        at = 64 + self._req_prod % self.layout.nr_slots * self.layout.slot_size
        self.page[at : at + len(raw)] = raw
        self._req_prod += 1
        struct.pack_into("=I", self.page, 0, self._req_prod)

    def answer(self, one: Answered) -> None:
        """Post, take and put."""
        self.post(one.event.raw)
        assert self.ring.take() == one.event.raw
        self.ring.put(one.response)

    def flush(self) -> None:
        """What a session does before it records."""
        self.ring.publish()
        list(self.guard.missed())


def numbered(number: int) -> Answered:
    return answered(
        make_slot(V7, 4, payload={"index": 1, "new_value": number}, paused=True), taken_ns=monotonic_ns()
    )


def number_of(one: Answered) -> int:
    return int(one.event.new_value)  # type: ignore[attr-defined]


def write(recording: Recording, batch: list[Answered]) -> None:
    """Record, and wait until it is in the file."""
    recording.write(batch)
    writer = recording._writer
    assert writer is not None
    while writer.held:
        recording.turn()


ONE = numbered(1)


def read(path: Path) -> list[Answered]:
    with Capture(path) as capture:
        records = list(capture)
        assert capture.damage is None, capture.damage.why
    return records


@pytest.mark.parametrize("abi", INTERFACE_IDS)
def test_what_was_answered_is_recorded(tmp_path: Path, abi: str) -> None:
    layout = interface(abi)
    one = answered(bytes(layout.slot_size), layout)
    pending, path = Pending(), tmp_path / "p.pcapng"
    watched = Watched(pending, layout)
    pending.follow(CaptureWriter(path, info_of(layout)))
    for _ in range(3):
        watched.answer(one)
    watched.ring.publish()
    assert pending.recover(bytes(watched.page)) == Recovered(path, 3, 0, 0)
    assert pending.recover() is None
    records = read(path)
    assert [(two.event, two.answer, two.response) for two in records] == [
        (one.event, "allow", one.response)
    ] * 3


@pytest.mark.parametrize(
    ("response", "name"),
    [
        (Response(name="deny", flags=int(Flag.DENY)), "deny"),
        (Response(name="x", flags=int(Flag.TOGGLE_SINGLESTEP | Flag.EMULATE)), "emulate+toggle_singlestep"),
    ],
)
def test_an_answer_is_named_after_its_flags(tmp_path: Path, response: Response, name: str) -> None:
    pending, path = Pending(), tmp_path / "p.pcapng"
    watched = Watched(pending)
    pending.follow(CaptureWriter(path, info_of()))
    watched.answer(ONE._replace(response=encode(ONE.event, response)))
    watched.answer(ONE._replace(response=acknowledge(ONE.event.raw, V7)))
    watched.ring.publish()
    pending.recover()
    assert [one.answer for one in read(path)] == [name, "plain"]


def test_what_xen_was_not_shown_has_no_answer(tmp_path: Path) -> None:
    pending, path = Pending(), tmp_path / "p.pcapng"
    watched = Watched(pending)
    pending.follow(CaptureWriter(path, info_of()))
    watched.answer(numbered(0))
    watched.flush()
    watched.answer(numbered(1))
    watched.post(numbered(2).event.raw)
    assert watched.ring.take() is not None  # a policy thinks about it
    watched.post(numbered(3).event.raw)
    assert pending.recover(bytes(watched.page)) == Recovered(path, 1, 3, 0)
    assert [(number_of(one), one.answer) for one in read(path)] == [
        (0, "allow"),
        (1, "unanswered"),
        (2, "unanswered"),
        (3, "unanswered"),
    ]


def test_what_the_deadline_thread_answered_is_there_in_order(tmp_path: Path) -> None:
    pending, path = Pending(), tmp_path / "p.pcapng"
    watched = Watched(pending)
    recording = Recording(path, pending=pending)
    recording.begin(info_of())
    watched.answer(numbered(0))
    watched.flush()
    write(recording, [numbered(0)])
    watched.answer(numbered(1))
    watched.post(numbered(2).event.raw)
    while not watched.guard.answered:
        watched.guard.look(monotonic_ns())
    watched.answer(numbered(3))
    watched.ring.publish()
    assert pending.recover(bytes(watched.page)) == Recovered(path, 3, 0, 0)
    assert list(map(number_of, read(path))) == [0, 1, 2, 3]


def test_a_write_that_was_cut_short_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.pcapng"
    pending = Pending()
    watched = Watched(pending)
    recording = Recording(path, pending=pending)
    recording.begin(info_of())
    watched.answer(ONE)
    watched.flush()
    write(recording, [ONE])
    size = path.stat().st_size
    watched.answer(ONE)
    watched.answer(ONE)
    watched.flush()
    recording._writer.write([ONE, ONE])  # type: ignore[union-attr]
    os.truncate(path, size + 100)
    assert pending.recover() == Recovered(path, 2, 0, 0)
    assert len(read(path)) == 3


def test_what_is_held_is_recovered(tmp_path: Path) -> None:
    pending, path = Pending(), tmp_path / "p.pcapng"
    watched = Watched(pending)
    recording = Recording(path, pending=pending)
    recording.begin(info_of())
    size = path.stat().st_size
    batch = [numbered(0), numbered(1)]
    for one in batch:
        watched.answer(one)
        watched.flush()
        recording.write([one])
    assert path.stat().st_size == size
    assert pending.recover(bytes(watched.page)) == Recovered(path, 2, 0, 0)
    assert list(map(number_of, read(path))) == [0, 1]


def test_nothing_is_recorded_twice(tmp_path: Path) -> None:
    path = tmp_path / "p.pcapng"
    pending = Pending()
    recording = Recording(path, pending=pending)
    recording.begin(info_of())
    for _ in range(2):  # attachments
        watched, one = Watched(pending), numbered(1)
        watched.answer(one)
        watched.flush()
        write(recording, [one])
        assert pending.recover(bytes(watched.page)) is None
    recording.close()
    recording.release()
    assert pending.recover() is None
    assert len(read(path)) == 2


def test_more_than_there_is_room_for(tmp_path: Path) -> None:
    pending, path = Pending(), tmp_path / "p.pcapng"
    watched = Watched(pending)
    for _ in range(2000):  # nobody records
        watched.answer(ONE)
        watched.flush()
    assert pending.recover() is None
    pending.follow(CaptureWriter(path, info_of()))
    for number in range(2000):
        watched.answer(numbered(number))
        watched.flush()
    assert pending.recover(bytes(watched.page)) == Recovered(path, 1024, 0, 976)
    assert list(map(number_of, read(path))) == list(range(976, 2000))


def test_a_capture_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    pending = Pending()
    watched = Watched(pending)
    pending.follow(CaptureWriter(tmp_path / "p.pcapng", info_of()))
    watched.answer(ONE)
    watched.ring.publish()
    (tmp_path / "p.pcapng").unlink()
    with pytest.raises(FileNotFoundError):
        pending.recover()


#: What a process does with two requests, over and over.
STEPS = ("post", "answer", "post", "answer", "publish", "record")


@pytest.mark.parametrize("kept", [True, False])
def test_killed_between_any_two_steps(tmp_path: Path, kept: bool) -> None:
    """A child records and is killed after a number of steps; what it has answered is in the file, once."""
    for steps in range(26):
        path = tmp_path / f"{steps}.pcapng"
        pending = Pending()
        watched = Watched(pending)
        child = os.fork()
        if child == 0:
            try:
                _record_until(steps, path, pending, watched)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        pending.recover(bytes(watched.page) if kept else None)
        done = [STEPS[n % len(STEPS)] for n in range(steps)]
        posted, published = done.count("post"), 2 * done.count("publish")
        records = read(path)
        assert list(map(number_of, records)) == list(range(posted if kept else published))
        assert sum(one.answer == "allow" for one in records) == published


def _record_until(steps: int, path: Path, pending: Pending, watched: Watched) -> None:
    recording = Recording(path, pending=pending)
    recording.begin(info_of())
    batch: list[Answered] = []

    def post() -> None:
        batch.append(numbered(next(numbers)))
        watched.post(batch[-1].event.raw)

    def answer() -> None:
        watched.ring.take()
        watched.ring.put(batch[-1].response)

    def record() -> None:
        list(watched.guard.missed())
        recording.write(batch)
        batch.clear()

    numbers = iter(range(1000))
    does: dict[str, Callable[[], object]] = {
        "post": post, "answer": answer, "publish": watched.ring.publish, "record": record,
    }  # fmt: skip
    for n in range(steps):
        does[STEPS[n % len(STEPS)]]()
    os.kill(os.getpid(), signal.SIGKILL)
