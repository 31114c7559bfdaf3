"""The worker's end: it says what it is about to do to the domain, before it does it."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from xenintro.supervise.board import CHANGING, WATCHING
from xenintro.xen.keeper import Watcher

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from xenintro.supervise.board import Board

#: How long the worker waits for the supervisor to map the ring page; without it, it goes on all the same.
_KEEP_SECONDS = 5.0


class Link(Watcher):
    """What `xenintro.xen.monitor.Monitor` tells the supervisor.

    Attributes:
        pending: what is not recorded yet; the supervisor does that if this process dies.
    """

    def __init__(self, board: Board, channel: socket.socket) -> None:
        self._board = board
        self.pending = board.pending
        self._channel = channel
        self._channel.settimeout(_KEEP_SECONDS)
        self._asked = 0

    @property
    def beat(self) -> memoryview:
        """Eight bytes for the deadline thread's beat."""
        return memoryview(self._board.memory)[:8]

    @property
    def record(self) -> memoryview:
        """Where the ring notes what it answers."""
        return self.pending.record

    def taking(self, domid: int) -> None:
        """Nothing was done to the domain yet; returns when the supervisor has its own way to the ring."""
        self._board.write(domid=domid, port=0, tag=0)
        self._board.enter(CHANGING)
        self._ask("keep", domid)

    def attached(self, port: int, tag: int) -> None:
        """The ring exists: Xen's end of its event channel, and the mark on its page."""
        self._board.write(port=port, tag=tag)

    def changing(self) -> None:
        """Something is about to be done to the domain, or undone: it may be paused, and that takes time."""
        self._board.enter(CHANGING)

    def watching(self) -> None:
        """Traps are on, the domain runs, and the deadline thread beats."""
        self._board.enter(WATCHING)

    def turning(self) -> None:
        """The loop has come round."""
        self._board.turn()

    def released(self) -> None:
        """Nothing is left to give back; the page must go, it keeps a dead domain from being freed."""
        self._board.leave()
        self._ask("drop", 0)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """The domain was given back, and what is left to do takes time: files, and no guest, wait for it."""
        self._board.write(finishing=1)
        try:
            yield
        finally:
            self._board.write(finishing=0)

    def _ask(self, do: str, domid: int) -> None:
        self._asked += 1
        # Without a supervisor, or with a slow one, the deadline thread and the journal remain.
        with suppress(OSError):
            self._channel.send(json.dumps([self._asked, do, domid]).encode())
            while (answer := self._channel.recv(32)) and int(answer) != self._asked:
                pass  # to a question that was given up
