"""Log lines of a service: plain for people, with a priority in front for the journal; never waited for."""

from __future__ import annotations

import logging
import os
from collections import Counter
from time import monotonic

from xenintro.sinks.stderr import NeverWaiting

#: syslog(3): 3 error, 4 warning, 6 info, 7 debug.
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

#: Seconds between two warnings that say the same, and how many different ones are kept in mind.
_REPEAT_EVERY, _MOST_KEPT = 5.0, 64


class LogHandler(logging.Handler):
    """Writes lines to a descriptor, and drops them while nobody reads: a log must not make a guest wait.

    What repeats itself, like a policy that fails at every event, is logged every few seconds with a count.
    """

    def __init__(self, fd: int, *, journal: bool) -> None:
        super().__init__()
        self._out = NeverWaiting(fd)
        self._journal = journal
        self._said: dict[str, float] = {}  # warnings, and when they may be said again
        self._held: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or count it as dropped or repeated."""
        text = self.format(record).replace("\n", " ")
        if record.levelno == logging.WARNING and (text := self._repeated(text)) == "":
            return
        if self._journal:
            priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
            text = f"<{priority}>{text}"
        elif record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        self._out.write(f"{text}\n")

    @property
    def dropped(self) -> int:
        """Lines that nobody read."""
        return self._out.dropped

    def _repeated(self, text: str) -> str:
        """The text with how often it was held back, or nothing if it was said just now."""
        now = monotonic()
        if now < self._said.get(text, 0.0):
            self._held[text] += 1
            return ""
        if len(self._said) >= _MOST_KEPT:
            self._said.clear()
            self._held.clear()
        self._said[text] = now + _REPEAT_EVERY
        held = self._held.pop(text, 0)
        return f"{text} (and {held} times more)" if held else text


def set_up(verbosity: int) -> None:
    """Log to stderr what the service does; with 1 also how it attaches, with 2 all, with -1 only trouble."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(LogHandler(2, journal="JOURNAL_STREAM" in os.environ))
    root.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[max(0, min(verbosity, 2))])
    service = logging.getLogger("xenintro.service")
    service.setLevel(logging.NOTSET if verbosity > 0 else logging.INFO if verbosity == 0 else logging.WARNING)
