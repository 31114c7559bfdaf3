"""The first serial line: what Xen, its guests and dom0 say."""

from __future__ import annotations

import contextlib
import re
import select
import threading
import time
from pathlib import Path

from tests.lab.machine import Machine


class Console:
    """Everything that came over the first serial line; waits are for text, never for time."""

    def __init__(self, machine: Machine, log: Path) -> None:
        self._machine, self._log = machine, log
        self._text = ""
        self._more = threading.Condition()
        self._stopped = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """Leave the line to someone else."""
        self._stopped.set()
        self._reader.join()

    def _read(self) -> None:
        line = self._machine.console
        with self._log.open("wb") as log, contextlib.suppress(OSError, ValueError):
            while not self._stopped.is_set():
                if not select.select([line], [], [], 0.2)[0]:
                    continue
                if not (data := line.recv(65536)):
                    return
                log.write(data)
                log.flush()
                with self._more:
                    self._text += data.decode("latin-1").replace("\r", "")
                    self._more.notify_all()

    def mark(self) -> int:
        """A place in the text, to look at only what comes after it."""
        with self._more:
            return len(self._text)

    def since(self, mark: int) -> str:
        """The text after a mark."""
        with self._more:
            return self._text[mark:]

    def wait(self, pattern: str, *, since: int = 0, timeout: float = 120) -> re.Match[str]:
        """The first match of a pattern after the mark, as soon as it is there."""
        deadline = time.monotonic() + timeout
        with self._more:
            while not (found := re.compile(pattern).search(self._text, since)):
                left = deadline - time.monotonic()
                if left <= 0 or not self._machine.alive():
                    raise TimeoutError(f"no {pattern!r} on the console; its end:\n{self._text[-1500:]}")
                self._more.wait(min(left, 1))
        return found
