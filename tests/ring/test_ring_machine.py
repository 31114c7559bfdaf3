"""Any order of steps of both ends, any start index: one answer each, in order, bytes intact.

The front end here keeps a second copy of the page that only its own steps and the expected
writes of the ring change; after every step the two pages are equal, so a write of the ring
that nobody asked for cannot hide.
"""

from __future__ import annotations

import struct
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xenintro.errors import AlreadyAnsweredError
from xenintro.xen.ring import Ring, RingCorruptError

PAGE = 4096
SLOT0 = 64
REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT = 0, 4, 8, 12
U32 = 1 << 32

LAYOUTS = st.sampled_from([(32, 64), (40, 64), (296, 8), (312, 8), (376, 8), (384, 8), (400, 8)])
STARTS = st.one_of(st.integers(U32 - 200, U32 - 1), st.integers(0, U32 - 1))
SEEDS = st.binary(min_size=1, max_size=8)


class RingMachine(RuleBasedStateMachine):
    """The ring under test, Xen's side of the page, and what each request has come to."""

    @initialize(layout=LAYOUTS, start=STARTS, held=st.integers(0, 8), garbage=SEEDS)
    def attach(self, layout: tuple[int, int], start: int, held: int, garbage: bytes) -> None:
        self.slot_size, self.nr_slots = layout
        self.page = bytearray((garbage * PAGE)[:PAGE])
        self.expected = bytearray(self.page)
        self.req_prod = self.rsp_cons = start  # Xen's private indices
        self.hidden: deque[bytes] = deque()  # requests Xen wrote and has not published
        self.waiting: deque[bytes] = deque()  # published, not taken
        self.unanswered = 0
        self.unpublished: deque[bytes] = deque()  # responses put, not published
        self.unread: deque[bytes] = deque()  # published, not read by Xen
        self.req_cons = self.rsp_prod = start
        for offset, index in ((REQ_PROD, start), (RSP_PROD, start), (REQ_EVENT, start + 1)):
            self.xen_writes(offset, index)
        # Taken over from someone who had taken some requests and answered none of them.
        for _ in range(held):
            self.req_prod += 1
            self.req_cons += 1
            self.unanswered += 1
        self.xen_writes(REQ_PROD, self.req_prod)
        self.take_over()

    def xen_writes(self, offset: int, value: int | bytes) -> None:
        data = value if isinstance(value, bytes) else struct.pack("=I", value % U32)
        for page in (self.page, self.expected):
            page[offset : offset + len(data)] = data

    def index_on_page(self, offset: int) -> int:
        value: int = struct.unpack_from("=I", self.page, offset)[0]
        return value

    def slot(self, index: int) -> slice:
        at = SLOT0 + index % self.nr_slots * self.slot_size
        return slice(at, at + self.slot_size)

    @property
    def free(self) -> int:
        return self.nr_slots - (self.req_prod - self.rsp_cons)

    @rule()
    def take_over(self) -> None:
        """A new ring object with the old one's indices goes on where that one stopped."""
        self.ring = Ring(
            memoryview(self.page),
            self.slot_size,
            self.nr_slots,
            req_cons=self.req_cons % U32,
            rsp_prod_pvt=(self.req_cons - self.unanswered) % U32,
        )

    @precondition(lambda self: self.free)
    @rule(requests=st.lists(SEEDS, min_size=1, max_size=9))
    def xen_puts(self, requests: list[bytes]) -> None:
        for seed in requests[: self.free]:
            request = (seed + struct.pack("=Q", self.req_prod)) * self.slot_size
            self.hidden.append(request[: self.slot_size])
            self.xen_writes(self.slot(self.req_prod).start, self.hidden[-1])
            self.req_prod += 1

    @rule()
    def xen_publishes(self) -> None:
        self.xen_writes(REQ_PROD, self.req_prod)
        self.waiting += self.hidden
        self.hidden.clear()

    @precondition(lambda self: self.free)
    @rule(which=st.integers(0, 63), garbage=SEEDS)
    def free_slots_hold_garbage(self, which: int, garbage: bytes) -> None:
        at = self.slot(self.req_prod + which % self.free).start
        self.xen_writes(at, (garbage * self.slot_size)[: self.slot_size])

    @rule(limit=st.integers(1, 70))
    def xen_reads_responses(self, limit: int) -> None:
        while limit and self.rsp_cons % U32 != self.index_on_page(RSP_PROD):
            assert self.page[self.slot(self.rsp_cons)] == self.unread.popleft()
            self.rsp_cons += 1
            limit -= 1
        self.xen_writes(RSP_EVENT, self.rsp_cons + 1)

    @rule(times=st.integers(1, 70))
    def take(self, times: int) -> None:
        for _ in range(times):
            if not self.waiting:
                assert self.ring.take() is None
                return
            assert self.ring.take() == self.waiting.popleft()
            self.req_cons += 1
            self.unanswered += 1
            struct.pack_into("=I", self.expected, REQ_EVENT, (self.req_cons + 1) % U32)

    @rule(responses=st.lists(SEEDS, min_size=1, max_size=9))
    def put(self, responses: list[bytes]) -> None:
        for seed in responses:
            index = self.req_cons - self.unanswered
            response = (struct.pack("=Q", index) + seed) * self.slot_size
            response = response[: self.slot_size]
            if not self.unanswered:
                with pytest.raises(AlreadyAnsweredError):
                    self.ring.put(response)
                return
            self.ring.put(response)
            self.expected[self.slot(index)] = response
            self.unpublished.append(response)
            self.unanswered -= 1

    @rule()
    def publish(self) -> None:
        self.ring.publish()
        self.rsp_prod = self.req_cons - self.unanswered
        struct.pack_into("=I", self.expected, RSP_PROD, self.rsp_prod % U32)
        self.unread += self.unpublished
        self.unpublished.clear()

    @rule(excess=st.one_of(st.integers(1, 9), st.integers(1, U32 - 65)), taking=st.booleans())
    def impossible_req_prod(self, excess: int, taking: bool) -> None:
        room = self.nr_slots - self.unanswered
        right = self.index_on_page(REQ_PROD)
        self.xen_writes(REQ_PROD, self.req_cons + room + excess)
        before = bytes(self.page)
        with pytest.raises(RingCorruptError, match="damaged"):
            self.ring.take() if taking else self.ring.pending()
        assert self.page == before
        self.xen_writes(REQ_PROD, right)

    @invariant()
    def nothing_else_was_written(self) -> None:
        assert self.page == self.expected

    @invariant()
    def counts_agree(self) -> None:
        ring = self.ring
        assert ring.pending() == len(self.waiting)
        assert ring.unanswered == self.unanswered
        assert ring.req_cons == self.req_cons % U32
        assert ring.rsp_prod_pvt == (self.req_cons - self.unanswered) % U32

    @invariant()
    def nothing_overtakes(self) -> None:
        published = self.req_prod - len(self.hidden)
        assert self.rsp_cons <= self.rsp_prod <= self.req_cons <= published
        assert self.req_prod - self.rsp_cons <= self.nr_slots
        # Every request is somewhere, once: waiting, unanswered, answered, or read by Xen.
        assert published - self.rsp_cons == (
            len(self.waiting) + self.unanswered + len(self.unpublished) + len(self.unread)
        )


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
