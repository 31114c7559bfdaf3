"""The ring against the simulator's half of it: what one side puts is what the other takes."""

from __future__ import annotations

import mmap
import struct
from types import SimpleNamespace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xenintro.abi import interface
from xenintro.sim import ring as sim
from xenintro.xen.ring import Ring

U32 = 1 << 32
INTERFACES = st.sampled_from(["mem_event-4.4", "mem_event-rfc3", "vm_event-1", "vm_event-7"])
STARTS = st.one_of(st.integers(U32 - 100, U32 - 1), st.integers(0, U32 - 1))
COUNTS = st.integers(1, 70)


class SimMachine(RuleBasedStateMachine):
    """Both halves on one page, from any index on; every slot carries its own number."""

    @initialize(name=INTERFACES, start=STARTS)
    def attach(self, name: str, start: int) -> None:
        layout = interface(name)
        self.page = mmap.mmap(-1, mmap.PAGESIZE)
        struct.pack_into("=4I", self.page, 0, start, (start + 1) % U32, start, (start + 1) % U32)
        machine = SimpleNamespace(interface=layout, release=(4, 17))
        domain = SimpleNamespace(machine=machine, vcpus=[])
        self.bell: list[None] = []
        channel = SimpleNamespace(raise_it=lambda: self.bell.append(None), close=lambda: None)
        self.xen = sim.Ring(domain, self.page, channel)
        self.xen.req_prod = self.xen.rsp_cons = start
        self.ring = Ring(self.page, layout.slot_size, layout.nr_slots, req_cons=start, rsp_prod_pvt=start)
        self.vcpu = SimpleNamespace(vcpu_id=0, event_pauses=1, ring_blocked=False)
        self.sent = self.taken = self.put = self.published = self.read = 0

    def slot(self, kind: bytes, number: int) -> bytes:
        pattern = kind + struct.pack("=Q", number)
        return (pattern * self.ring.slot_size)[: self.ring.slot_size]

    @precondition(lambda self: self.xen.free)
    @rule(count=COUNTS)
    def xen_sends(self, count: int) -> None:
        for _ in range(min(count, self.xen.free)):
            self.xen.put(self.vcpu, sim.Request("cpuid", True, self.slot(b"request", self.sent), 0))
            self.sent += 1
        assert len(self.bell) == self.sent

    @rule(count=COUNTS)
    def take(self, count: int) -> None:
        for _ in range(min(count, self.sent - self.taken)):
            assert self.ring.take() == self.slot(b"request", self.taken)
            self.taken += 1
        if self.taken == self.sent:
            assert self.ring.take() is None

    @precondition(lambda self: self.put < self.taken)
    @rule(count=COUNTS)
    def answer(self, count: int) -> None:
        for _ in range(min(count, self.taken - self.put)):
            self.ring.put(self.slot(b"response", self.put))
            self.put += 1

    @rule()
    def publish(self) -> None:
        self.ring.publish()
        self.published = self.put

    @rule()
    def xen_resumes(self) -> None:
        while self.read < self.published:
            assert self.xen.take() == self.slot(b"response", self.read)
            self.read += 1
        assert self.xen.take() is None

    @invariant()
    def both_count_alike(self) -> None:
        assert self.ring.pending() == self.sent - self.taken
        assert self.ring.unanswered == self.taken - self.put
        assert self.xen.free == self.ring.nr_slots - (self.sent - self.read)


TestSimMachine = SimMachine.TestCase
TestSimMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
