"""The supervisor: sees how the worker ends, or that it does not, and gives back what it held."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, NoReturn

from xenintro.errors import XenintroError
from xenintro.supervise.board import CHANGING
from xenintro.supervise.link import Link
from xenintro.supervise.signals import ENDING, PASSED, Forwarding
from xenintro.supervise.takeover import ended
from xenintro.xen.keeper import Keeper
from xenintro.xen.process import die_with_parent
from xenintro.xen.xc import Xc

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.supervise.board import Board
    from xenintro.xen.library import Library

_log = logging.getLogger(__name__)

#: Seconds between looks at the worker's beats.
_LOOK = 0.25
#: A worker whose deadline thread has not beaten for so long is stopped: nobody answers the guest.
_STOPPED = 2.0
#: Attaching and giving back take milliseconds, page by page some seconds; the guest may be paused meanwhile.
_CHANGING = 20.0
#: A loop that has not come round for so long never will: the guest crawls from deadline to deadline.
_STUCK = 60.0
#: When that is said: nothing is printed meanwhile.
_QUIET = 5.0
#: How long the worker has to end after it was told to, and after it was told again.
_ENDING, _ENDING_NOW = 10.0, 3.0
#: When it is told again by us: that interrupts a policy that does not come back.
_REMINDED = 2.0


class Supervisor:
    """Runs a function in a process of its own, and takes over if that dies.

    Args:
        library: loaded before, so that neither process pays for it; each opens its own handles.
        own_domid: the domain that these processes run in.
        board: what the worker writes.
        work: runs in the worker; returns its exit code.
    """

    def __init__(self, library: Library, own_domid: int, board: Board, work: Callable[[Link], int]) -> None:
        self._library = library
        self._own_domid = own_domid
        self._board = board
        self._work = work
        self._keeper: Keeper | None = None
        self._told: list[float] = []
        self._reminded = False
        self._said = False
        self._why = ""

    def run(self) -> int:
        """Start the worker, and see it to its end; returns its exit code.

        Raises:
            WorkerDiedError: it ended badly; the domain was given back.
            ReleaseError: it ended badly, and the domain could not be given back.
        """
        os.setsid()
        die_with_parent(signal.SIGTERM)
        _prefer_others_for_oom()
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        forwarding = Forwarding(self._heard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = os.fork()
        if worker == 0:
            for fd in (wake_read, wake_write, ours.detach()):
                os.close(fd)
            self._become_worker(forwarding, theirs)
        theirs.close()
        self._board.write(worker=worker)
        forwarding.start(worker)
        status = self._watch(worker, wake_read, ours)
        if os.WIFSIGNALED(status) and self._told and not self._board.attached:
            return 0  # it had not come so far as to mind signals
        try:
            return ended(status, self._why, self._board, self._library, self._own_domid, self._keeper)
        finally:
            self._drop()

    def _become_worker(self, forwarding: Forwarding, channel: socket.socket) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        die_with_parent(signal.SIGTERM)
        forwarding.undo()
        os._exit(self._work(Link(self._board, channel)))

    def _watch(self, worker: int, wake: int, channel: socket.socket) -> int:
        """Serve the worker until it has ended; returns its wait status."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(channel, select.POLLIN)
        while True:
            for fd, _ in poll.poll(_LOOK * 1000):
                if fd == wake:
                    os.read(wake, 4096)
                elif not self._serve(channel):
                    poll.unregister(channel)
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                return status
            if self._told and not self._reminded and monotonic() - self._told[0] > _REMINDED:
                self._reminded = True
                os.kill(worker, signal.SIGTERM)
            why = self._lost()
            if why:
                self._why = why
                os.kill(worker, signal.SIGKILL)

    def _serve(self, channel: socket.socket) -> bool:
        """Do what the worker asks; False when it has closed its end."""
        try:
            packet = channel.recv(256)
        except ConnectionResetError:  # it died before it had read our last word
            return False
        if not packet:
            return False
        do, domid = json.loads(packet)
        self._drop()
        if do == "keep":
            try:
                self._keeper = Keeper(Xc(self._library, own_domid=self._own_domid), domid)
            except XenintroError as error:
                _log.info("no second way to the ring of domain %d: %s", domid, error)
        try:
            channel.send(b"done")
        except OSError:
            return False
        return True

    def _lost(self) -> str:
        """Why the worker must be killed; empty if it lives."""
        board, now = self._board, monotonic_ns()
        if self._told and self._ends_too_slowly():
            return "it did not end when it was told to"
        if not board.attached:
            return ""
        limits = {"beat": _STOPPED, "turn": _STUCK}
        if board.read("phase") == CHANGING:
            limits = {"since": _CHANGING}
        elif not self._said and now - board.read("turn") > _QUIET * 1e9:
            self._said = True
            _log.warning("no answer from the policy for %.0f s: events are allowed at their deadline", _QUIET)
        for field, seconds in limits.items():
            if now - board.read(field) > seconds * 1e9:
                return _REASONS[field]
        return ""

    def _heard(self, number: int) -> None:
        if number in ENDING:
            self._told.append(monotonic())

    def _ends_too_slowly(self) -> bool:
        limit = _ENDING if len(self._told) == 1 else _ENDING_NOW
        return self._board.attached and monotonic() - self._told[-1] > limit

    def _drop(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None


_REASONS = {
    "beat": f"it was stopped for {_STOPPED:.0f} s (SIGSTOP?), and nobody answered the guest",
    "turn": f"its loop had not come round for {_STUCK:.0f} s: a policy, or a call that hangs",
    "since": f"a call to Xen did not return for {_CHANGING:.0f} s",
}


def _prefer_others_for_oom() -> None:
    """The kernel is to kill the worker rather than the one that can save its guest; needs root."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123 - a kernel's file
            file.write("-900")
    except OSError as error:
        _log.debug("the out-of-memory score stays: %s", error)
