"""The ring of one domain, from enable to unmap: page, event channel, pauses. No traps here."""

from __future__ import annotations

import logging
import secrets
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Protocol

from xenintro.codec import acknowledge, decode
from xenintro.errors import XenintroError
from xenintro.ringpage import RingPage
from xenintro.source import Missed
from xenintro.units import PAGE_SIZE
from xenintro.xen.caller import Caller
from xenintro.xen.evtchn import EventChannel
from xenintro.xen.guard import Guard, InjectTarget
from xenintro.xen.keeper import mark
from xenintro.xen.lifeline import Lifeline
from xenintro.xen.pauses import Pauses
from xenintro.xen.ring import Ring
from xenintro.xen.teardown import release_error, tried

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.abi import Interface
    from xenintro.errors import DomainGoneError
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.journal import Journal
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)


class Kept(Protocol):
    """A ring page that somebody mapped while its monitor lived."""

    @property
    def address(self) -> int:
        """Of the page in this process; whoever mapped it unmaps it."""


class Attachment:
    """A domain whose monitor ring belongs to this process.

    The domain is paused while a ring is made and stays paused: unpause it with `unpause` when the traps are
    on. A ring that is taken over from a dead monitor is in use.

    Args:
        xc: an open libxc.
        info: the domain.
        interface: the layout of its ring.
        journal: its journal.
        kept: a ring to take over; without, one is made.
        record: where a ring that is made notes what is answered; see `xenintro.xen.ring.Ring.record`.

    Attributes:
        guard: the deadline thread, once `guarded`; it runs until the ring is given up.
        info: the domain as it was when attached.
        ring: the monitor's end of the ring, initialised before anything can trap.
        enabled: the ring exists.
        drained: what `drain` has answered; an empty response where that was too late.
        unanswered: requests that had no answer when the ring was given up; zero unless a step failed.

    Raises:
        DomainBusyError: another agent holds the ring, or died holding it.
        DamagedInputError, ValueError: what is to be taken over is no ring.
    """

    def __init__(
        self,
        xc: Xc,
        info: DomainInfo,
        interface: Interface,
        journal: Journal,
        kept: Kept | None = None,
        record: memoryview | None = None,
    ) -> None:
        self.info = info
        self.interface = interface
        self._xc = xc
        self._journal = journal
        self._domid = info.domid
        self._pauses = Pauses(xc, info.domid, journal)
        self._address: int | None = None
        self.enabled = False
        self._ring_stays = False
        self._channel: EventChannel | None = None
        self._injector: Caller | None = None
        self.guard: Guard | None = None
        self._tell: Callable[[], None]
        self._put = 0
        self.unanswered = 0
        self.drained: list[Missed] = []
        # Before the domain is paused: a xenstored that hangs costs a second or two.
        self._lifeline = Lifeline(xc, info)
        self._lifeline_fd: int | None = None
        try:
            if kept is None:
                self._make(record)
            else:
                self._adopt(kept)
        except BaseException as error:
            gone = self.death() if isinstance(error, XenintroError) else None
            if failures := self.release():
                raise release_error(info, failures) from error
            if gone is not None:
                raise gone from error
            raise

    def _make(self, record: memoryview | None) -> None:
        self.pause()
        # libxc pauses the domain too, and a process can die in the middle of that.
        with self._journal.counting(0):
            self._address, remote_port = self._xc.monitor_enable(self._domid)
            self.enabled = True
            self._journal.note_port(remote_port)
        self.ring = Ring(self._address, self.interface.slot_size, self.interface.nr_slots)
        # A ring page that was used before still holds the old indices.
        self.ring.init()
        if record is not None:
            self.ring.record(record)
        self._bind(remote_port)
        _log.info("ring of %d slots, event channel port %d", self.interface.nr_slots, remote_port)

    def _adopt(self, kept: Kept) -> None:
        """Take over where the dead monitor stopped: what it had not published was not answered.

        Responses that it had put lie in their own requests' slots, and still say whose they are. Its event
        channel stays its own while a child that it forked has the device open: Xen is told without one, and
        nothing rings; `drain` looks for itself.
        """
        ffi = self._xc.library.ffi
        page = RingPage(bytes(ffi.buffer(ffi.cast("uint8_t *", kept.address), PAGE_SIZE)), self.interface)
        size, slots, seen = self.interface.slot_size, self.interface.nr_slots, page.rsp_prod
        self.ring = Ring(kept.address, size, slots, req_cons=seen, rsp_prod_pvt=seen)
        self._tell = partial(self._xc.monitor_resume, self._domid)
        self._tell()  # it may have died between publishing and telling
        self.enabled = True
        _log.info("took over a ring with %d requests", page.unanswered)

    def _bind(self, remote_port: int) -> None:
        self._remote_port = remote_port
        self._channel = EventChannel(self._xc.library)
        self._channel.bind(self._domid, remote_port)
        self._tell = self._channel.notify
        self._lifeline_fd = self._lifeline.fileno()
        if self._lifeline_fd is not None:
            self._channel.also(self._lifeline_fd)

    def mark(self) -> tuple[int, int]:
        """Xen's end of the event channel, and a number on the page by which the ring is known again."""
        assert self._address is not None
        tag = secrets.randbits(64) | 1
        mark(self._address, tag)
        return self._remote_port, tag

    def guarded(
        self, deadline: float, *, singlestep_always: bool, interrupts: bool, beat: int | None
    ) -> None:
        """Start the deadline thread, before anything can trap; see `xenintro.xen.guard.Guard`."""
        library = self._xc.library
        inject = None
        if library.has("xc_hvm_inject_trap"):
            # Its own handle: libxc handles are not shared between threads.
            self._injector = Caller(library, self._xc.own_domid)
            inject = InjectTarget(library.address("xc_hvm_inject_trap"), self._injector.address, self._domid)
        self.guard = Guard(
            self.ring,
            self.interface,
            deadline=deadline,
            notify=self.channel.notify_target(),
            inject=inject,
            singlestep_always=singlestep_always,
            interrupts=interrupts,
            beat=beat,
        )
        self.guard.start()

    @property
    def channel(self) -> EventChannel:
        """The bound event channel; a ring that was taken over has none."""
        assert self._channel is not None
        return self._channel

    def pause(self) -> None:
        """Pause the domain; `release` takes every pause back."""
        self._pauses.take()

    def unpause(self) -> None:
        """Take back one `pause`, if there is one: others may have paused the domain too."""
        self._pauses.give_back()

    def wait(self, timeout: float) -> bool:
        """Return when the channel rang or a domain died, or after ``timeout`` seconds; whether one died."""
        port = self.channel.wait(timeout)
        if port is not None:
            # Unmask before draining: a request that comes meanwhile rings again.
            self.channel.unmask(port)
            return False
        died = self._lifeline.rang()
        if self._lifeline_fd is not None and self._lifeline.fileno() is None:
            self.channel.not_also(self._lifeline_fd)
            self._lifeline_fd = None
        return died

    def put(self, response: bytes) -> bool:
        """Put a response on the ring, unseen until `flush`; False if it came too late and was dropped."""
        in_time = self.ring.put(response)
        self._put += in_time
        return in_time

    def flush(self) -> int:
        """Publish the responses; Xen has consumed them when this returns. See `Ring.publish`."""
        if not self._put:
            return 0
        by_guard_ns = self.ring.publish()
        self._tell()
        self._put = 0  # only now: what Xen was not told of is told again
        return by_guard_ns

    def drain(self) -> int:
        """Answer what is on the ring with the least response; returns how many there were."""
        answered = []
        while (raw := self.ring.take()) is not None:
            taken_ns = monotonic_ns()
            sent = acknowledge(raw, self.interface)
            # What was dropped keeps its place: the deadline thread tells what was sent instead.
            answered.append((raw, sent if self.put(sent) else b"", taken_ns))
        self.flush()
        now_ns = monotonic_ns()
        self.drained += [
            Missed(decode(raw, self.interface), sent, taken_ns, now_ns, 0, taken=True)
            for raw, sent, taken_ns in answered
        ]
        return len(answered)

    def answer_unasked(self, responses: list[bytes]) -> None:
        """Publish responses to requests that a ring before this one had. Only `release` may follow."""
        assert self._address is not None
        size, slots = self.interface.slot_size, self.interface.nr_slots
        for first in range(0, len(responses), slots):
            batch = responses[first : first + slots]
            ring = Ring(self._address, size, slots, req_cons=first + len(batch), rsp_prod_pvt=first)
            for response in batch:
                ring.put(response)
            ring.publish()
            self._tell()

    def check(self) -> DomainInfo:
        """The domain as it is now.

        Raises:
            DomainGoneError: destroyed, replaced by another, crashed or shut down.
        """
        try:
            return self._lifeline.check()
        finally:
            self._forget_the_gone()

    def death(self) -> DomainGoneError | None:
        """How the domain died, if it did: what other errors come from then."""
        died = self._lifeline.death()
        self._forget_the_gone()
        return died

    def _forget_the_gone(self) -> None:
        """Xen tore the ring down itself; only our mapping keeps the domain from being freed."""
        if self._lifeline.gone:
            self.enabled = False
            self._pauses.count = 0

    def disable(self) -> None:
        """Give up the ring. vCPUs with unanswered requests stay paused for ever: drain first.

        Raises:
            ReleaseError: a vCPU waits for a free slot.
        """
        if self.enabled and not self._ring_stays:
            tried(self._count_unanswered, [])
            self._xc.monitor_disable(self._domid)
            self.enabled = False

    def keep_ring(self) -> None:
        """Leave the ring to a rescue: `disable` and `release` do not give it up any more."""
        self._ring_stays = True

    def release(self) -> list[Exception]:
        """Give everything back, in order; every step is tried. Returns what failed."""
        failures: list[Exception] = []
        unpauses = [self.unpause] * self._pauses.count
        for step in (self.disable, self._unguard, self._unmap, self._close_channel, *unpauses):
            tried(step, failures)
        return failures

    def _count_unanswered(self) -> None:
        self.unanswered = self.ring.pending() + self.ring.unanswered + self._put

    def _unguard(self) -> None:
        """Only now: until the ring is gone somebody may wait for an answer."""
        if self.guard is not None:
            self.guard.stop()
        if self._injector is not None:
            self._injector.close()

    def _unmap(self) -> None:
        if self._address is not None and not self.enabled:
            address, self._address = self._address, None
            self._xc.unmap_page(address)

    def _close_channel(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            channel.close()
        self._lifeline.close()
