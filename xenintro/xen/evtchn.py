"""The event channel of a ring: Xen rings it after a request, we ring it after our responses."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from xenintro.xen.failures import failure

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from xenintro.xen.library import Library


_opened: WeakSet[EventChannel] = WeakSet()


class NotifyTarget(NamedTuple):
    """What a C caller needs to ring the bell: ``((int (*)(void *, uint32_t))function)(handle, port)``.

    Valid until the channel is closed.
    """

    function: int
    handle: int
    port: int


class EventChannel:
    """An open event channel device with at most one bound port.

    The order that loses no wake-up: `pending`, `unmask`, drain the ring.

    Args:
        library: the loaded calls (libxenevtchn; libxenctrl in 4.6).

    Raises:
        NoXenError: the device cannot be opened.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._domid: int | None = None
        self._port: int | None = None
        self._handle: Any = library.call("xenevtchn_open")(library.quiet_logger, 0)
        if not self._handle:
            raise failure("xenevtchn_open", library.errno)
        self._fd = self.fileno()
        _opened.add(self)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def bind(self, domid: int, remote_port: int) -> int:
        """Bind to Xen's end of a ring (`Xc.monitor_enable`); returns the local port."""
        self._domid = domid
        self._port = self._call("xenevtchn_bind_interdomain", domid, remote_port)
        return self._port

    def fileno(self) -> int:
        """The file descriptor to poll for input."""
        return self._call("xenevtchn_fd")

    def also(self, fd: int) -> None:
        """Let `wait` return when there is input on another descriptor too."""
        self._poll.register(fd, select.POLLIN)

    def not_also(self, fd: int) -> None:
        """Take back `also`, before the descriptor is closed."""
        self._poll.unregister(fd)

    def wait(self, timeout: float) -> int | None:
        """The local port that rings within ``timeout`` seconds, or None. It stays masked until `unmask`."""
        ready = [fd for fd, _ in self._poll.poll(timeout * 1000)]
        return self._call("xenevtchn_pending") if self._fd in ready else None

    def pending(self) -> int | None:
        """The local port that was rung, or None; never waits."""
        return self.wait(0)

    def unmask(self, port: int) -> None:
        """Let a port ring again."""
        self._call("xenevtchn_unmask", port)

    def notify(self) -> None:
        """Tell Xen about responses; it has consumed them all when this returns."""
        self._call("xenevtchn_notify", self._port)

    def notify_target(self) -> NotifyTarget:
        """The same as addresses, for the thread that answers when Python is late."""
        assert self._port is not None
        handle = int(self._library.ffi.cast("uintptr_t", self._handle))
        return NotifyTarget(self._library.address("xenevtchn_notify"), handle, self._port)

    def close(self) -> None:
        """Unbind and close, both even if the first fails; closing twice is fine."""
        if self._handle:
            if self._port is not None:
                self._library.call("xenevtchn_unbind")(self._handle, self._port)
            self._library.call("xenevtchn_close")(self._handle)
        self._handle = self._port = None
        _opened.discard(self)

    def _call(self, name: str, *args: object) -> int:
        result = int(self._library.call(name)(self._handle, *args))
        if result < 0:
            raise failure(name, self._library.errno, self._domid)
        return result


def _leave_to_the_parent() -> None:
    """A port stays bound until the last process that has the device open closes it, were it a forked child.

    The descriptor's number stays taken: the child's copy of libxc knows it.
    """
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for channel in _opened:
        os.dup2(nowhere, channel._fd, inheritable=False)
    os.close(nowhere)


os.register_at_fork(after_in_child=_leave_to_the_parent)
