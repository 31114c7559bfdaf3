"""Output that never makes a vCPU wait: what the reader does not take at once is kept, then dropped."""

from __future__ import annotations

import os
import select
import stat
import sys
from time import monotonic

from xenintro.sinks.stderr import open_again
from xenintro_cli.output import ReaderGoneError, cannot_write

#: Bytes kept for a reader that is slow or stopped (a pager, Ctrl-S, a dead ssh session).
_KEPT = 32 << 20
#: A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7)).
_PIPE_CHUNK = 4096
_CHUNK = 1 << 16
#: Seconds of writing at a time: a reader that has slept takes megabytes, and meanwhile the guest waits.
_AT_A_TIME = 0.005


class LiveStream:
    """Stdout while a guest is watched.

    Attributes:
        dropped: lines that were not printed because nobody read the ones before.
    """

    def __init__(self) -> None:
        self._fd = open_again(sys.stdout.fileno())
        self._kept = bytearray()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        mode = os.fstat(self._fd).st_mode
        waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._chunk = _PIPE_CHUNK if waits else _CHUNK
        self._held = False
        self.dropped = 0

    def hold(self) -> None:
        """Keep everything from now on; safe in a signal handler."""
        self._held = True

    def go_on(self) -> None:
        """Write again, what was kept with the next `write`; safe in a signal handler."""
        self._held = False

    def write(self, data: bytes) -> None:
        """Keep data, and write what the reader takes without waiting.

        Raises:
            ReaderGoneError: nobody reads any more.
            XenintroError: the output cannot be written.
        """
        if len(self._kept) + len(data) > _KEPT:
            self.dropped += data.count(b"\n")
        else:
            self._kept += data
        until = monotonic() + _AT_A_TIME
        while self._kept and not self._held and self._poll.poll(0) and self._write_some():
            if monotonic() > until:
                break

    def finish(self) -> None:
        """Write the rest, waiting for the reader: no guest waits any more.

        Raises:
            ReaderGoneError: nobody reads any more.
            XenintroError: the output cannot be written.
        """
        while self._kept:
            self._poll.poll()
            self._write_some()

    def _write_some(self) -> bool:
        """Write a bit; False if nothing goes."""
        try:
            written = os.write(self._fd, self._kept[: self._chunk])
        except BlockingIOError:
            return False
        except BrokenPipeError as error:
            raise ReaderGoneError from error
        except OSError as error:
            self._kept.clear()
            raise cannot_write(error) from error
        del self._kept[:written]
        return True
