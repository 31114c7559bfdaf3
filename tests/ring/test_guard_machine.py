"""deadline: any order of steps of Xen, the loop and the guard; nobody waits longer, one answer each.

The guard's looks come when it asks for them, on a clock of the machine's own. Xen here consumes responses
when it is told of them, as the real one does, and checks that nothing reaches it that it should not see.
"""

from __future__ import annotations

import ctypes
import struct
from time import monotonic_ns

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.codec import decode, encode
from xenintro.response import Response, allow
from xenintro.xen.evtchn import NotifyTarget
from xenintro.xen.guard import Guard, InjectTarget
from xenintro.xen.ring import Ring

U32 = 1 << 32
DEADLINE = 80_000_000
TICK = DEADLINE // 8
LAYOUT = interface("vm_event-7")
CODES = {name: code for code, name in LAYOUT.reasons.items()}
REASONS = st.sampled_from(
    ["write_ctrlreg", "cpuid", "software_breakpoint", "mem_access", "singlestep", "none"]
)
STARTS = st.one_of(st.integers(U32 - 40, U32 - 1), st.integers(0, U32 - 1))
#: Quarters of a tick, so that steps fall between looks; all equally likely, long ones too.
TIMES = st.sampled_from(range(0, 2 * DEADLINE, TICK // 4))

_NOTIFY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
_INJECT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint64] * 7)


class Posted:
    """One request and what has come of it."""

    def __init__(self, raw: bytes, now: int) -> None:
        self.raw = raw
        self.event = decode(raw, LAYOUT)
        self.not_before = now + DEADLINE - TICK  # when the guard may answer
        self.not_after = now + DEADLINE  # when it must have
        self.never_after = now + 2 * DEADLINE  # even if the loop injects
        self.by_guard = self.claimed = self.taken = False
        self.before = 0  # requests that the loop took before
        self.injections = 0
        self.response: bytes | None = None

    @property
    def has_trap(self) -> bool:
        return self.event.reason == "software_breakpoint" and self.event.paused


class GuardMachine(RuleBasedStateMachine):
    """A ring, its guard, and both ends of it."""

    @initialize(start=STARTS)
    def attach(self, start: int) -> None:
        self.page = bytearray(4096)
        struct.pack_into("=4I", self.page, 0, start, (start + 1) % U32, start, (start + 1) % U32)
        self.start = start
        self.ring = Ring(self.page, LAYOUT.slot_size, LAYOUT.nr_slots, req_cons=start, rsp_prod_pvt=start)
        # The machine's steps and the guard's calls meet here: exceptions do not pass through C.
        self.wrong: list[str] = []
        self.callbacks = _NOTIFY(self.notified), _INJECT(self.inject)
        notify, self.injects = (ctypes.cast(one, ctypes.c_void_p).value or 0 for one in self.callbacks)
        self.guard = Guard(
            self.ring,
            LAYOUT,
            deadline=DEADLINE / 1e9,
            notify=NotifyTarget(notify, 1, 7),
            inject=InjectTarget(self.injects, 2, 5),
        )
        self.now = monotonic_ns()
        self.due = self.guard.look(self.now)
        self.posted: list[Posted] = []
        self.taken = 0  # of these, by the loop or instead of it
        self.takes = 0  # by the loop
        self.consumed = 0
        self.loop: list[Posted] = []  # taken and without an answer of the loop
        self.missed: list[Posted] = []
        self.in_look = False
        self.injecting: Posted | None = None  # by the loop
        self.call_ns = 0  # how long Xen takes for that

    # Xen

    def notified(self, handle: int, port: int) -> int:
        assert (handle, port) == (1, 7)
        rsp_prod = struct.unpack_from("=I", self.page, 8)[0]
        while (self.start + self.consumed) % U32 != rsp_prod:
            one = self.posted[self.consumed]
            sent = bytes(self.page[self.slot(self.consumed)])
            if one.response is None:  # the guard's, seen here for the first time
                self.answered_by_guard(one)
            if sent != one.response:
                self.wrong.append(f"{one.event.reason}: another response than expected")
            if one.has_trap and not one.injections and one is not self.injecting:
                self.wrong.append("a response before its trap")
            self.consumed += 1
            struct.pack_into("=I", self.page, 12, (self.start + self.consumed + 1) % U32)
        return 0

    def inject(self, handle: int, domid: int, vcpu_id: int, vector: int, *_: int) -> int:
        assert (domid, vector) == (5, 3)
        one = self.posted[vcpu_id]
        by_loop = handle == 3
        if by_loop != (one is self.injecting):
            self.wrong.append("a trap from the wrong side")
        if by_loop:
            self.time_passes(self.call_ns)
        elif one.response is not None:
            self.wrong.append("a trap after its response")
        one.injections += 1
        return 0

    def answered_by_guard(self, one: Posted) -> None:
        if not self.in_look:
            self.wrong.append("an answer from nowhere")
        one.by_guard = True
        if not one.taken:
            one.before = self.takes
        one.response = encode(one.event, allow(one.event))
        self.missed.append(one)
        if self.now < one.not_before:
            self.wrong.append(f"answered {one.not_before - self.now} ns too early")

    def slot(self, number: int) -> slice:
        at = 64 + (self.start + number) % LAYOUT.nr_slots * LAYOUT.slot_size
        return slice(at, at + LAYOUT.slot_size)

    @precondition(lambda self: len(self.posted) - self.consumed < LAYOUT.nr_slots)
    @rule(reasons=st.lists(st.tuples(REASONS, st.booleans()), min_size=1, max_size=4))
    def xen_puts(self, reasons: list[tuple[str, bool]]) -> None:
        for reason, paused in reasons[: LAYOUT.nr_slots - len(self.posted) + self.consumed]:
            self.xen_puts_one(reason, paused)

    def xen_puts_one(self, reason: str, paused: bool) -> None:
        number = len(self.posted)
        code = CODES.get(reason, 99)
        raw = make_slot(LAYOUT, code, vcpu_id=number, paused=paused, registers={"rip": 0x1000 + number})
        self.posted.append(Posted(raw, self.now))
        self.page[self.slot(number)] = raw
        struct.pack_into("=I", self.page, 0, (self.start + number + 1) % U32)

    # The guard

    def look(self) -> None:
        self.in_look = True
        self.due = self.guard.look(self.now)
        self.in_look = False
        if not self.now < self.due <= self.now + TICK:
            self.wrong.append("the next look is not within a tick")
        if any(self.now >= one.not_after for one in self.posted[self.consumed :]):
            self.wrong.append("this one has waited too long")

    @rule(time=TIMES)
    def time_passes(self, time: int) -> None:
        until = self.now + time
        while self.due <= until:
            self.now = self.due
            self.look()
        self.now = until

    @rule(delay=TIMES)
    def guard_is_delayed(self, delay: int) -> None:
        """As by SIGSTOP or a busy machine: what waits meanwhile waits that much longer."""
        for one in self.posted[self.consumed :]:
            one.not_after += delay
            one.never_after += delay
        self.now += delay
        if self.due <= self.now:
            self.look()

    # The loop

    @precondition(lambda self: self.taken < len(self.posted))
    @rule(times=st.integers(1, 9))
    def take(self, times: int) -> None:
        for _ in range(times):
            self.taken = max(self.taken, sum(one.by_guard for one in self.posted[self.taken :]) + self.taken)
            raw = self.ring.take()
            if self.taken == len(self.posted):
                assert raw is None
                return
            one = self.posted[self.taken]
            assert raw == one.raw
            assert self.ring.after_missed == bool(self.missed)
            self.loop.append(one)
            one.taken, one.before = True, self.takes
            self.taken += 1
            self.takes += 1
            assert self.ring.takes == self.takes

    @precondition(lambda self: self.loop)
    @rule(times=st.integers(1, 9), response=st.sampled_from([Response.plain(), None]), call_ns=TIMES)
    def put(self, times: int, response: Response | None, call_ns: int) -> None:
        for one in self.loop[:times]:
            answer = encode(one.event, response or allow(one.event))
            self.inject_by_loop(one, call_ns)
            assert self.ring.put(answer) == (one.response is None)
            one.response = one.response or answer
            self.loop.remove(one)

    @precondition(lambda self: self.loop)
    @rule(call_ns=TIMES)
    def prepare_and_stall(self, call_ns: int) -> None:
        one = self.loop[0]
        if one.has_trap:
            self.inject_by_loop(one, call_ns)
        else:
            assert self.ring.claim() == (one.response is None)
            one.claimed |= one.response is None

    def inject_by_loop(self, one: Posted, call_ns: int) -> None:
        """The request waits for that, and those behind it do; one look later all is as before."""
        if not one.has_trap or one.injections:
            return
        if one.response is None:
            one.claimed = True
            self.injecting, self.call_ns = one, call_ns
            until = self.now + min(DEADLINE, call_ns + TICK)
            for later in self.posted[self.posted.index(one) :]:
                later.not_after = max(later.not_after, min(until, one.never_after))
        assert self.guard.inject(InjectTarget(self.injects, 3, 5), self.now) == 0
        self.injecting = None

    @rule(tells=st.booleans())
    def publish(self, tells: bool) -> None:
        assert self.ring.publish() <= self.now
        if tells:
            self.notified(1, 7)

    @rule()
    def collect_missed(self) -> None:
        told = list(self.guard.missed())
        assert [slot.raw for slot in told] == [one.raw for one in self.missed]
        for slot, one in zip(told, self.missed, strict=True):
            assert slot.claimed == one.claimed
            assert (slot.before, slot.taken) == (one.before, one.taken)
            assert slot.since_ns <= slot.answered_ns <= self.now
        self.missed.clear()

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.wrong == []

    @invariant()
    def no_trap_comes_twice(self) -> None:
        assert all(one.injections <= one.has_trap for one in self.posted)

    @invariant()
    def counts_agree(self) -> None:
        assert self.guard.answered == sum(one.by_guard for one in self.posted)
        late = sum(one.by_guard for one in self.posted[: self.taken])
        assert self.ring.dropped <= late


TestGuardMachine = GuardMachine.TestCase
TestGuardMachine.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
