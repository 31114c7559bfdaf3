"""Xen's half of a ring: requests in, responses out, vCPUs that wait for room (common/vm_event.c)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from xenintro.abi import SLOT0

if TYPE_CHECKING:
    from mmap import mmap

    from xenintro.sim.domain import Domain
    from xenintro.sim.evtchn import Channel
    from xenintro.sim.vcpu import Vcpu

_MASK = 0xFFFFFFFF

# Indices of the page as 32-bit words.
REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT = range(4)


class Request(NamedTuple):
    """What is remembered of a request until it is answered."""

    reason: str
    sync: bool
    raw: bytes
    posted_ns: int


class Ring:
    """One session: from XEN_VM_EVENT_ENABLE to DISABLE.

    Attributes:
        unanswered: requests by vCPU, oldest first.
        waiting: vCPUs asleep inside Xen until a slot is free.
        woken: those among them that a free slot has woken since the scheduler last looked.
        blocked: how many vCPUs are blocked because the ring is nearly full.
    """

    def __init__(self, domain: Domain, page: mmap, channel: Channel) -> None:
        interface = domain.machine.interface
        self.domain = domain
        self.channel = channel
        self.unanswered: dict[int, list[Request]] = {}
        self.waiting: deque[Vcpu] = deque()
        self.woken: list[Vcpu] = []
        self.blocked = 0
        self.req_prod = 0  # FRONT_RING_INIT: private, the page is not touched
        self.rsp_cons = 0
        self.unsolicited = 0
        self._nr = interface.nr_slots
        self._size = interface.slot_size
        self._page = memoryview(page)
        # Whole 32-bit loads and stores: the other end reads these words while they change.
        self._words = self._page.cast("I")
        self._last_woken = 0
        # Up to 4.8 the ring blocks vCPUs that an event paused too, and needs more free slots than
        # vCPUs to wake one; 7f8445d967 (4.9).
        self._old_blocking = domain.machine.release < (4, 9)

    @property
    def free(self) -> int:
        """RING_FREE_REQUESTS: more than there are slots after unsolicited responses."""
        return self._nr - _signed(self.req_prod - self.rsp_cons)

    @property
    def beyond(self) -> bool:
        """Whether more responses were taken than requests were made."""
        return _signed(self.req_prod - self.rsp_cons) < 0

    def word(self, index: int) -> int:
        """An index on the page, as the client left it."""
        return self._words[index]

    def put(self, vcpu: Vcpu, request: Request) -> None:
        """vm_event_put_request; the caller has seen that a slot is free."""
        start = SLOT0 + (self.req_prod & self._nr - 1) * self._size
        self._page[start : start + self._size] = request.raw
        self.req_prod = self.req_prod + 1 & _MASK
        self._words[REQ_PROD] = self.req_prod
        self.unanswered.setdefault(vcpu.vcpu_id, []).append(request)
        self.wake()
        counts = self._old_blocking or not vcpu.event_pauses
        if counts and self.free < len(self.domain.vcpus) and not vcpu.ring_blocked:
            vcpu.ring_blocked = True
            self.blocked += 1
        self.channel.raise_it()

    def take(self) -> bytes | None:
        """vm_event_get_response: the next response's slot, which is free then."""
        if self._words[RSP_PROD] == self.rsp_cons:
            return None
        start = SLOT0 + (self.rsp_cons & self._nr - 1) * self._size
        raw = bytes(self._page[start : start + self._size])
        self.rsp_cons = self.rsp_cons + 1 & _MASK
        self._words[RSP_EVENT] = self.rsp_cons + 1 & _MASK
        self.wake()
        return raw

    def skip(self) -> None:
        """Give up on responses that nobody asked for; see `Machine.resume`."""
        self.rsp_cons = self._words[RSP_PROD]

    def wake(self) -> None:
        """vm_event_wake: vCPUs that wait for a slot first, then blocked ones."""
        if self.waiting:
            for _ in range(min(self.free, len(self.waiting))):
                vcpu = self.waiting.popleft()
                vcpu.waiting = False
                self.woken.append(vcpu)
        elif self.blocked and self.free > 0:
            self._wake_blocked()

    def _wake_blocked(self) -> None:
        vcpus = self.domain.vcpus
        count = len(vcpus)
        room = self.free
        online = count - self.blocked
        for step in range(count):
            vcpu = vcpus[(self._last_woken + 1 + step) % count]
            if not self.blocked or (online >= room if self._old_blocking else room == 0):
                return
            if vcpu.ring_blocked:
                vcpu.ring_blocked = False
                self.blocked -= 1
                self._last_woken = vcpu.vcpu_id
                if self._old_blocking:
                    online += 1
                else:
                    room -= 1

    def release(self) -> None:
        """vm_event_disable: the channel closes, ring-blocked vCPUs run on; paused ones do not."""
        self.channel.close()
        for vcpu in self.domain.vcpus:
            vcpu.ring_blocked = False
        for vcpu in self.waiting:
            vcpu.waiting = False
        self.waiting.clear()
        self._words.release()
        self._page.release()


def _signed(difference: int) -> int:
    difference &= _MASK
    return difference - (1 << 32) if difference >> 31 else difference
