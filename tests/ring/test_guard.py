"""The deadline thread as Python sees it: its life, its heartbeat, what it refuses."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import threading
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

import pytest

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.codec import decode, encode
from xenintro.errors import UsageError
from xenintro.response import allow
from xenintro.xen.guard import Guard, InjectTarget
from xenintro.xen.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = interface("vm_event-7")
INT3_CODE = next(code for code, name in LAYOUT.reasons.items() if name == "software_breakpoint")
CR3 = make_slot(LAYOUT, 4, payload={"index": 1}, paused=True)
INT3, INT3_OF_ANOTHER = (make_slot(LAYOUT, INT3_CODE, vcpu_id=vcpu, paused=True) for vcpu in (1, 2))
CPUID = make_slot(LAYOUT, 10, payload={"insn_length": 2}, registers={"rip": 0x1000}, paused=True)
MS = 1_000_000

_INJECT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint64] * 7, use_errno=True)


def comes_true(condition: Callable[[], bool]) -> bool:
    limit = monotonic() + 20
    while not condition() and monotonic() < limit:
        threading.Event().wait(0.001)
    return condition()


def tasks() -> dict[str, Path]:
    return {(task / "comm").read_text().strip(): task for task in Path("/proc/self/task").iterdir()}


def post(page: bytearray, *requests: bytes) -> None:
    for number, raw in enumerate(requests):
        page[64 + number * 400 : 464 + number * 400] = raw
    struct.pack_into("=I", page, 0, len(requests))


@pytest.fixture
def page() -> bytearray:
    return bytearray(4096)


@pytest.fixture
def ring(page: bytearray) -> Ring:
    ring = Ring(page, LAYOUT.slot_size, LAYOUT.nr_slots)
    ring.init()
    return ring


def test_deadline_is_kept_by_a_thread_that_takes_no_signal(ring: Ring, page: bytearray) -> None:
    guard = Guard(ring, LAYOUT, deadline=0.01)
    guard.start()
    try:
        assert comes_true(lambda: "xenintro-guard" in tasks())
        status = (tasks()["xenintro-guard"] / "status").read_text()
        blocked = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)
        assert all(blocked >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM))
        post(page, CR3, CPUID)
        assert comes_true(lambda: struct.unpack_from("=I", page, 8) == (2,))
    finally:
        guard.stop()
    guard.stop()
    assert comes_true(lambda: "xenintro-guard" not in tasks())
    missed = list(guard.missed())
    assert [slot.raw for slot in missed] == [CR3, CPUID]
    assert guard.answered == 2
    assert guard.longest_ns == max(slot.answered_ns - slot.since_ns for slot in missed) >= 10 * MS
    assert page[464:864] == guard.response(CPUID)


def test_it_beats_while_it_lives(ring: Ring) -> None:
    beat = ctypes.c_uint64(0)
    guard = Guard(ring, LAYOUT, deadline=0.01, beat=ctypes.addressof(beat))
    guard.start()
    begun = monotonic_ns()
    assert comes_true(lambda: beat.value > begun)
    guard.stop()
    last = beat.value
    assert not comes_true_within(0.1, lambda: beat.value != last)


def comes_true_within(seconds: float, condition: Callable[[], bool]) -> bool:
    limit = monotonic() + seconds
    while monotonic() < limit:
        if condition():
            return True
    return False


@pytest.mark.parametrize("deadline", [0.01, 1, 20])
def test_it_beats_several_times_a_second_whatever_the_deadline(ring: Ring, deadline: float) -> None:
    guard = Guard(ring, LAYOUT, deadline=deadline)
    now = monotonic_ns()
    assert guard.look(now) - now <= min(deadline / 8 * 1e9, 250 * MS)


def test_a_claim_is_refused_for_what_is_answered_and_holds_for_the_rest(ring: Ring, page: bytearray) -> None:
    guard = Guard(ring, LAYOUT, deadline=0.08)
    now = monotonic_ns()
    guard.look(now)
    post(page, CR3)
    guard.look(now + 10 * MS)
    post(page, CR3, CPUID)
    for _ in range(2):
        ring.take()
    guard.look(now + 80 * MS)  # the first is due, the second is not
    assert guard.answered == 1
    assert not ring.claim()
    assert not ring.put(encode_allowed(CR3))
    assert ring.claim()
    assert ring.put(encode_allowed(CPUID))
    assert (ring.dropped, ring.unanswered) == (1, 0)


def test_a_claim_keeps_nobody_waiting(ring: Ring, page: bytearray) -> None:
    guard = Guard(ring, LAYOUT, deadline=0.08)
    now = monotonic_ns()
    guard.look(now)
    post(page, CR3)
    guard.look(now + 10 * MS)
    ring.take()
    assert ring.claim()
    guard.look(now + 80 * MS)
    assert [slot.claimed for slot in guard.missed()] == [True]


class Injections:
    """xc_hvm_inject_trap, and what happens during the loop's call."""

    def __init__(self, during: Callable[[], object] = lambda: None, errno: int = 0) -> None:
        self.by: list[str] = []
        self._during = during
        self._errno = errno
        self._call = _INJECT(self._inject)
        function = ctypes.cast(self._call, ctypes.c_void_p).value or 0
        self.by_guard, self.by_loop = (InjectTarget(function, handle, 5) for handle in (1, 2))

    def _inject(self, handle: int, domid: int, vcpu_id: int, vector: int, *_: int) -> int:
        assert (domid, vector) == (5, 3)
        self.by.append("guard" if handle == 1 else "loop")
        if handle == 2:
            self._during()
        ctypes.set_errno(self._errno)
        return -1 if self._errno else 0


def test_a_call_that_hangs_is_never_made_twice(ring: Ring, page: bytearray) -> None:
    """Nor for the vCPU's next event, while the first call may still get through."""
    now = monotonic_ns()
    answered = []

    def time_passes() -> None:
        for at in (88, 159, 160):
            guard.look(now + at * MS)
            answered.append(guard.answered)
        post(page, INT3, INT3, INT3_OF_ANOTHER)
        for at in (170, 250):
            guard.look(now + at * MS)
        answered.append(guard.answered)

    injections = Injections(time_passes)
    guard = Guard(ring, LAYOUT, deadline=0.08, inject=injections.by_guard)
    guard.look(now)
    post(page, INT3)
    guard.look(now + 10 * MS)
    ring.take()
    assert guard.inject(injections.by_loop, now + 79 * MS) == 0
    assert answered == [0, 1, 1, 3]
    assert injections.by == ["loop", "guard"], "the other vCPU got its trap"
    assert not ring.put(encode_allowed(INT3))
    assert guard.inject(injections.by_loop, now + 251 * MS) == 0, "answered: nothing is injected"
    assert len(injections.by) == 2


def test_what_the_loop_has_injected_is_answered_without_a_trap(ring: Ring, page: bytearray) -> None:
    injections = Injections()
    guard = Guard(ring, LAYOUT, deadline=0.08, inject=injections.by_guard)
    now = monotonic_ns()
    guard.look(now)
    post(page, INT3)
    guard.look(now + 10 * MS)
    ring.take()
    assert guard.inject(injections.by_loop, now + 70 * MS) == 0
    guard.look(now + 80 * MS)
    assert guard.answered == 1, "no further deadline: the call is done"
    assert injections.by == ["loop"]


def test_an_error_of_the_call_is_told(ring: Ring, page: bytearray) -> None:
    injections = Injections(errno=errno.EBUSY)
    guard = Guard(ring, LAYOUT, inject=injections.by_guard)
    post(page, INT3)
    ring.take()
    assert guard.inject(injections.by_loop, monotonic_ns()) == errno.EBUSY


def test_a_forked_child_waits_for_no_thread(ring: Ring) -> None:
    guard = Guard(ring, LAYOUT)
    guard.start()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        guard.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert "xenintro-guard" in tasks()
    guard.stop()


def encode_allowed(raw: bytes) -> bytes:
    event = decode(raw, LAYOUT)
    return encode(event, allow(event))


def test_a_damaged_page_is_left_alone(ring: Ring, page: bytearray) -> None:
    guard = Guard(ring, LAYOUT, deadline=0.01)
    struct.pack_into("=I", page, 0, 9)
    before = bytes(page)
    for time in range(0, 100, 5):
        guard.look(monotonic_ns() + time * MS)
    assert page == before
    assert guard.answered == 0


def test_more_than_the_log_holds_is_counted(ring: Ring, page: bytearray) -> None:
    guard = Guard(ring, LAYOUT, deadline=0.01)
    now = monotonic_ns()
    for number in range(1030):
        struct.pack_into("=I", page, 0, number + 1)
        guard.look(now := now + 2 * MS)
        struct.pack_into("=I", page, 12, struct.unpack_from("=I", page, 8)[0] + 1)
    while guard.answered < 1030:
        guard.look(now := now + 2 * MS)
    assert guard.lost == 1030 - len(list(guard.missed())) == 6


@pytest.mark.parametrize("deadline", [0, -1, 0.009])
def test_a_deadline_is_never_off(ring: Ring, deadline: float) -> None:
    with pytest.raises(UsageError, match="a deadline of"):
        Guard(ring, LAYOUT, deadline=deadline)


def test_forgotten_it_ends() -> None:
    guard = Guard(Ring(bytearray(4096), LAYOUT.slot_size, LAYOUT.nr_slots), LAYOUT)
    guard.start()
    assert comes_true(lambda: "xenintro-guard" in tasks())
    del guard
    assert comes_true(lambda: "xenintro-guard" not in tasks())
