"""What a service says to systemd (sd_notify): lines in a datagram to ``$NOTIFY_SOCKET``."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from time import monotonic_ns

#: Seconds between signs of life where the service manager does not ask for any.
_NO_WATCHDOG = float("inf")


class Notifier:
    """Tells the service manager how the service is; without one, nothing happens. Never waits, never raises.

    Attributes:
        interval: seconds between two `alive`: a quarter of what the watchdog allows. WATCHDOG_PID is not
            looked at: it names the process that systemd started, and the loop runs in a child of that one.
    """

    def __init__(self) -> None:
        name = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if name else None
        )
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        self.interval = int(microseconds) / 4e6 if microseconds.isdecimal() else _NO_WATCHDOG

    def ready(self, status: str) -> None:
        """The service does what it is for."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """The loop has come round."""
        self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is read again; `ready` says when that is done."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service is about to end."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def close(self) -> None:
        """Close the socket; nothing is told any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        with suppress(OSError):  # a service manager that does not listen is no reason to fail
            self._socket.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
