"""Talk that never makes its process wait: what stderr does not take at once is not said."""

from __future__ import annotations

import io
import os
import select
from contextlib import suppress

#: A pipe that polls writable takes this much without blocking (pipe(7)).
_AT_ONCE = 4096


class NeverWaiting(io.TextIOBase):
    """Stderr for a process that answers a guest, or watches over one that does: for `logging`, for instance.

    A stderr that nobody reads (a full pipe, a terminal after Ctrl-S) would block a write for ever.

    Args:
        fd: the descriptor, if it is not stderr.

    Attributes:
        dropped: texts that were not said.
    """

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self.dropped = 0

    def write(self, text: str) -> int:
        """Write a text, cut to what goes at once, or drop it."""
        self.dropped += not self._written(text)
        return len(text)

    def _written(self, text: str) -> bool:
        data = text.encode(errors="replace")
        if len(data) > _AT_ONCE:
            data = data[: _AT_ONCE - 1] + b"\n"
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(0):
            return False
        own = open_again(self._fd)
        try:
            return os.write(own, data) == len(data)
        except OSError:
            return False
        finally:
            if own != self._fd:
                os.close(own)


def open_again(fd: int) -> int:
    """The same terminal, opened once more so as to never wait for it: it may say it has room for a byte.

    The descriptor that was given is shared with the shell, and must go on waiting. What is no terminal, or
    that of another user (after su), is given back as it is.
    """
    if os.isatty(fd):
        with suppress(OSError):
            return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    return fd
