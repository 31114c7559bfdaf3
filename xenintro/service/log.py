"""Log lines of a service: plain for people, with a priority in front for the journal; never waited for."""

from __future__ import annotations

import logging
import os
import select

#: syslog(3): 3 error, 4 warning, 6 info, 7 debug.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

#: A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7)).
_LONGEST = 4096


class LogHandler(logging.Handler):
    """Writes lines to a descriptor, and drops them while nobody reads: a log must not make a guest wait."""

    def __init__(self, fd: int, *, journal: bool) -> None:
        super().__init__()
        self._fd = fd
        self._journal = journal
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or count it as dropped."""
        text = self.format(record).replace("\n", " ")
        if self._journal:
            priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
            text = f"<{priority}>{text}"
        elif record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        try:
            if self._poll.poll(0):
                os.write(self._fd, text.encode(errors="replace")[: _LONGEST - 1] + b"\n")
                return
        except OSError:
            pass
        self.dropped += 1


def set_up(verbosity: int) -> None:
    """Log to stderr what the service does; with 1 also how it attaches, with 2 all, with -1 only trouble."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(LogHandler(2, journal="JOURNAL_STREAM" in os.environ))
    root.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[max(0, min(verbosity, 2))])
    service = logging.getLogger("xenintro.service")
    service.setLevel(logging.NOTSET if verbosity > 0 else logging.INFO if verbosity == 0 else logging.WARNING)
