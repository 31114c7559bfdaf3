"""What signals mean to a process that watches: all of them end in order, and none freezes the guest."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xenintro.supervise.signals import ENDING, HANGUP_AND_USER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.session import Session
    from xenintro_cli.stream import LiveStream

#: Everything that a terminal or a service manager sends.
ALL_ENDING = (*ENDING, *HANGUP_AND_USER)


@contextmanager
def stopped_by_signals(session: Session, stream: LiveStream | None = None) -> Iterator[None]:
    """Let every signal that a terminal or a service manager sends end the session in order.

    Ctrl-Z holds back a live stream until the job goes on (SIGCONT): the guest is answered meanwhile. What was
    ignored before (nohup) stays ignored.
    """
    before: dict[int, Any] = {}
    for number in ALL_ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda *_: session.stop())
    if stream is not None:
        before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, lambda *_: stream.hold())
        before[signal.SIGCONT] = signal.signal(signal.SIGCONT, lambda *_: stream.go_on())
    try:
        yield
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
