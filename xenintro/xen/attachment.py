"""The ring of one domain, from enable to unmap: page, event channel, pauses. No traps here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xenintro.codec import acknowledge
from xenintro.errors import DomainGoneError, NoSuchDomainError
from xenintro.xen.domains import DomainInfo, domain_info
from xenintro.xen.evtchn import EventChannel
from xenintro.xen.ring import Ring
from xenintro.xen.teardown import release_error, tried

if TYPE_CHECKING:
    from xenintro.abi import Interface
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)

_SHUTDOWN_REASONS = ("powered off", "rebooted", "was suspended", "crashed", "was killed by its watchdog")


class Attachment:
    """A domain whose monitor ring belongs to this process.

    The domain is paused while this is made and stays paused: unpause it with `unpause` when the traps are on.

    Attributes:
        info: the domain as it was when attached.
        ring: the monitor's end of the ring, initialised before anything can trap.
        enabled: the ring exists.
        unanswered: requests that had no answer when the ring was given up; zero unless a step failed.

    Raises:
        DomainBusyError: another agent holds the ring, or died holding it.
    """

    def __init__(self, xc: Xc, info: DomainInfo, interface: Interface) -> None:
        self.info = info
        self.interface = interface
        self._xc = xc
        self._domid = info.domid
        self._pauses = 0
        self._address: int | None = None
        self.enabled = False
        self._channel: EventChannel | None = None
        self._put = 0
        self.unanswered = 0
        self.pause()
        try:
            self._address, remote_port = xc.monitor_enable(info.domid)
            self.enabled = True
            self.ring = Ring(self._address, interface.slot_size, interface.nr_slots)
            # A ring page that was used before still holds the old indices.
            self.ring.init()
            self._channel = EventChannel(xc.library)
            self._channel.bind(info.domid, remote_port)
            _log.info("ring of %d slots, event channel port %d", interface.nr_slots, remote_port)
        except BaseException as error:
            if failures := self.release():
                raise release_error(info.name or f"domain {info.domid}", failures) from error
            raise

    @property
    def channel(self) -> EventChannel:
        """The bound event channel."""
        assert self._channel is not None
        return self._channel

    def pause(self) -> None:
        """Pause the domain; `release` takes every pause back."""
        self._xc.pause(self._domid)
        self._pauses += 1

    def unpause(self) -> None:
        """Take back one `pause`, if there is one: others may have paused the domain too."""
        if self._pauses:
            self._xc.unpause(self._domid)
            self._pauses -= 1

    def wait(self, timeout: float) -> None:
        """Return when the channel rang, or after ``timeout`` seconds."""
        port = self.channel.wait(timeout)
        if port is not None:
            # Unmask before draining: a request that comes meanwhile rings again.
            self.channel.unmask(port)

    def put(self, response: bytes) -> None:
        """Put a response on the ring, unseen until `flush`."""
        self.ring.put(response)
        self._put += 1

    def flush(self) -> None:
        """Publish the responses; Xen has consumed them when this returns."""
        if self._put:
            self.ring.publish()
            self.channel.notify()
            self._put = 0  # only now: what Xen was not told of is told again

    def drain(self) -> int:
        """Answer what is on the ring with the least response; returns how many there were."""
        answered = 0
        while (raw := self.ring.take()) is not None:
            self.put(acknowledge(raw, self.interface))
            answered += 1
        self.flush()
        return answered

    def check(self) -> DomainInfo:
        """The domain as it is now.

        Raises:
            DomainGoneError: destroyed, replaced by another, crashed or shut down.
        """
        name = self.info.name or f"domain {self._domid}"
        try:
            info = domain_info(self._xc, self._domid, named=False)
        except NoSuchDomainError:
            info = None
        if info is None or info.dying or info.uuid != self.info.uuid:
            # Xen tore the ring down itself; only our mapping keeps the domain from being freed.
            self.enabled = False
            self._pauses = 0
            raise DomainGoneError(
                f"{name} was destroyed",
                why="Xen does not list it any more",
                hint=f"when it is back: xenintro watch --name {self.info.name or self.info.uuid}",
            )
        if info.shutdown:
            reason = info.shutdown_reason or 0
            what = _SHUTDOWN_REASONS[reason] if reason < len(_SHUTDOWN_REASONS) else "shut down"
            raise DomainGoneError(
                f"{name} {what}",
                why=f"its shutdown reason is {reason}",
                hint=f"when it is back: xenintro watch --name {self.info.name or self.info.uuid}",
            )
        return info

    def disable(self) -> None:
        """Give up the ring. vCPUs with unanswered requests stay paused for ever: drain first.

        Raises:
            ReleaseError: a vCPU waits for a free slot.
        """
        if self.enabled:
            tried(self._count_unanswered, [])
            self._xc.monitor_disable(self._domid)
            self.enabled = False

    def release(self) -> list[Exception]:
        """Give everything back, in order; every step is tried. Returns what failed."""
        failures: list[Exception] = []
        unpauses = [self.unpause] * self._pauses
        for step in (self.disable, self._unmap, self._close_channel, *unpauses):
            tried(step, failures)
        return failures

    def _count_unanswered(self) -> None:
        self.unanswered = self.ring.pending() + self.ring.unanswered + self._put

    def _unmap(self) -> None:
        if self._address is not None and not self.enabled:
            address, self._address = self._address, None
            self._xc.unmap_ring(address)

    def _close_channel(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            channel.close()
