"""Signals on their way from the terminal to the worker."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: What ends a session in order, or reloads and rotates in a service.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM)
PASSED = (*ENDING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGCONT)


class Forwarding:
    """Passes signals on to a process; what was ignored before (nohup) stays ignored.

    Args:
        also: called with each signal after it was passed on.
    """

    def __init__(self, also: Callable[[int], None] | None = None) -> None:
        self.to: int | None = None
        self._waiting: list[int] = []
        self._also = also
        self._before: dict[int, Any] = {}
        for number in PASSED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._pass)

    def start(self, pid: int) -> None:
        """Name the process; what came before is passed on now."""
        self.to = pid
        for number in self._waiting:
            self._kill(number)

    def undo(self) -> None:
        """Give every signal its former handler back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass(self, number: int, frame: object) -> None:
        if self.to is None:
            self._waiting.append(number)
        else:
            self._kill(number)
        if self._also is not None:
            self._also(number)

    def _kill(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.to or 0, number)
