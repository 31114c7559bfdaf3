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


class Heard:
    """How many signals have asked for the end."""

    count = 0


@contextmanager
def stopped_by_signals(session: Session, stream: LiveStream | None = None) -> Iterator[Heard]:
    """Let every signal that a terminal or a service manager sends end the session in order.

    They interrupt nothing; what takes long after the session looks at what was heard. Ctrl-Z holds back a
    live stream until the job goes on (SIGCONT): the guest is answered meanwhile. What was ignored before
    (nohup) stays ignored.
    """
    heard = Heard()

    def hear(*_: object) -> None:
        heard.count += 1
        session.stop()

    before: dict[int, Any] = {}
    for number in ALL_ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, hear)
    if stream is not None:
        before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, lambda *_: stream.hold())
        before[signal.SIGCONT] = signal.signal(signal.SIGCONT, lambda *_: stream.go_on())
    try:
        yield heard
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
