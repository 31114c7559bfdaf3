"""Talk that never makes its process wait: what stderr does not take at once is not said."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress

#: A pipe that polls writable takes this much without blocking (pipe(7)).
_AT_ONCE = 4096


class NeverWaiting(io.TextIOBase):
    """Stderr for a process that answers a guest, or watches over one that does: for `logging`, for instance.

    A stderr that nobody reads (a full pipe, a terminal after Ctrl-S) would block a write for ever.
    """

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        fd = sys.stderr.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if poll.poll(0):
            with suppress(OSError):
                own = open_again(fd)
                try:
                    os.write(own, text.encode(errors="replace")[:_AT_ONCE])
                finally:
                    if own != fd:
                        os.close(own)
        return len(text)


def open_again(fd: int) -> int:
    """The same terminal, opened once more so as to never wait for it: it may say it has room for a byte.

    The descriptor that was given is shared with the shell, and must go on waiting. What is no terminal, or
    that of another user (after su), is given back as it is.
    """
    if os.isatty(fd):
        with suppress(OSError):
            return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    return fd
