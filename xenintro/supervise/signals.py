"""Signals on their way from the terminal to the worker."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What ends every verb in order.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM)
#: What ends a session in order too, and has other meanings for a service.
HANGUP_AND_USER = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PASSED = (*ENDING, *HANGUP_AND_USER, signal.SIGTSTP, signal.SIGCONT)


class Forwarding:
    """Passes signals on to a process; what was ignored before (nohup) stays ignored.

    Args:
        also: called with each signal after it was passed on.
    """

    def __init__(self, also: Callable[[int], None]) -> None:
        self._to: int | None = None
        self._waiting: list[int] = []
        self._also = also
        self._before: dict[int, Any] = {}
        for number in PASSED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._pass)

    def start(self, pid: int) -> None:
        """Name the process; what came before is passed on now."""
        self._to = pid
        for number in self._waiting:
            self._kill(number)

    def undo(self) -> None:
        """Give every signal its former handler back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass(self, number: int, frame: object) -> None:
        if self._to is None:
            self._waiting.append(number)
        else:
            self._kill(number)
        self._also(number)

    def _kill(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._to or 0, number)


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals wait: for a fork, until each side has the handlers that are its own."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)
    try:
        yield
    finally:
        release()


def release() -> None:
    """Let signals come that were held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)


def name_of(number: int) -> str:
    """``SIGKILL``; real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
