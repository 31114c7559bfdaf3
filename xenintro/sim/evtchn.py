"""Event channels between Xen and dom0, and /dev/xen/evtchn as the kernel of dom0 shows it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import termios
from typing import TYPE_CHECKING

from xenintro.sim.wire import PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.sim.rules import Rulebook

#: Notifications in a row through a port that was read and not unmasked, with an event pending on it,
#: until the rule counts as broken: another thread may answer between the read and the unmask.
_PATIENCE = 3


class Channel:
    """Xen's end: allocated unbound for dom0 by XEN_VM_EVENT_ENABLE.

    Args:
        port: its number in the guest.
        consumer: what EVTCHNOP_send does, synchronously.
    """

    def __init__(self, port: int, consumer: Callable[[], None]) -> None:
        self.port = port
        self.open = True
        self.local: LocalPort | None = None
        self._consumer = consumer

    def raise_it(self) -> None:
        """notify_via_xen_event_channel: nothing happens while the other end is not bound."""
        if self.local is not None:
            self.local.set_pending()

    def send(self) -> None:
        """EVTCHNOP_send from dom0."""
        if self.open:
            self._consumer()

    def close(self) -> None:
        """free_xen_event_channel: dom0's port stays, bound to nothing."""
        self.open = False
        self.local = None


class LocalPort:
    """dom0's end. Delivery masks it until the program writes the port back."""

    def __init__(self, port: int, device: Device, channel: Channel) -> None:
        self.port = port
        self.channel = channel
        self._device = device
        self._pending = False
        self._masked = False
        self._misses = 0

    def set_pending(self) -> None:
        """Raise the port; a masked one is remembered."""
        if self._masked:
            self._device.collect()
        if self._masked:
            self._pending = True
            return
        self._masked = True
        self._misses = 0
        self._device.deliver(self.port)

    def notify(self) -> None:
        """The program rings the other end."""
        if self._pending:
            self._device.collect()
        if self._pending and self._device.drained():
            self._misses += 1
            if self._misses == _PATIENCE:
                self._device.rules.broke("not-unmasked", f"port {self.port}")
        self.channel.send()

    def unmask(self) -> None:
        """The program wrote the port back."""
        self._masked = False
        if self._pending:
            self._pending = False
            self.set_pending()


class Device:
    """One open /dev/xen/evtchn: a socket pair whose other half the program has."""

    def __init__(self, rules: Rulebook) -> None:
        self.rules = rules
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near.setblocking(False)
        self._ports: dict[int, LocalPort] = {}
        self._next = 16

    def bind(self, channel: Channel) -> int:
        """EVTCHNOP_bind_interdomain."""
        if not channel.open or channel.local is not None:
            raise OSError(errno.EINVAL, "not an unbound port")
        local = LocalPort(self._next, self, channel)
        self._next += 1
        self._ports[local.port] = local
        channel.local = local
        # "We may have lost notifications on the remote unbound port. Fix that up here by
        # conservatively always setting a notification on the local port" (event_channel.c).
        local.set_pending()
        return local.port

    def port(self, port: int) -> LocalPort:
        """A port that this device bound (the driver answers ENOTCONN to any other)."""
        if port not in self._ports:
            raise OSError(errno.ENOTCONN, "not bound here")
        return self._ports[port]

    def unbind(self, port: int) -> None:
        """Close one port: Xen's end is unbound again, and open to the next."""
        local = self.port(port)
        del self._ports[port]
        if local.channel.local is local:
            local.channel.local = None

    def close(self) -> None:
        """What the kernel does when the last descriptor is closed."""
        for port in list(self._ports):
            self.unbind(port)
        self.near.close()
        self.far.close()

    def collect(self) -> None:
        """Take everything that the program wrote."""
        while self.serve():
            pass

    def serve(self) -> bool:
        """Take one packet that the program wrote, ports to unmask; False if there is none."""
        try:
            packet = self.near.recv(4096)
        except OSError:
            return False
        for (port,) in PORT.iter_unpack(packet[: len(packet) // 4 * 4]):
            if port in self._ports:
                self._ports[port].unmask()
        return bool(packet)

    def deliver(self, port: int) -> None:
        """Make a port readable."""
        with contextlib.suppress(OSError):
            self.near.send(PORT.pack(port))

    def drained(self) -> bool:
        """Whether the program has read everything that was delivered."""
        unread = fcntl.ioctl(self.near.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        return not any(unread)
