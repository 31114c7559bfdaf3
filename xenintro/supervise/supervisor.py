"""The supervisor: sees how the worker ends, or that it does not, and gives back what it held."""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, NoReturn

from xenintro.errors import XenintroError
from xenintro.supervise.limits import Limits
from xenintro.supervise.link import Link
from xenintro.supervise.signals import Forwarding, held_back, release
from xenintro.supervise.takeover import ended
from xenintro.xen.keeper import Keeper
from xenintro.xen.process import die_with, oom_score, set_oom_score
from xenintro.xen.xc import Xc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenintro.supervise.board import Board
    from xenintro.xen.library import Library

_log = logging.getLogger(__name__)

#: Seconds between looks at the worker's beats.
_LOOK = 0.25
#: A loop that has not come round for so long is said to be stuck: nothing is printed meanwhile.
_QUIET = 5.0
#: It does not notice either, then, that its domain has died.
_BLIND = 1.0
#: The kernel is to end the worker rather than the one that can save its guest.
_OOM_SCORE = -900


class Supervisor:
    """Runs a function in a process of its own, and takes over if that dies.

    Args:
        library: loaded before, so that neither process pays for it; each opens its own handles.
        own_domid: the domain that these processes run in.
        board: what the worker writes.
        work: runs in the worker; returns its exit code.
        ending: the signals that tell the worker to end.
    """

    def __init__(
        self,
        library: Library,
        own_domid: int,
        board: Board,
        work: Callable[[Link], int],
        ending: Sequence[int],
    ) -> None:
        self._library = library
        self._own_domid = own_domid
        self._board = board
        self._work = work
        self._ending = ending
        self._limits = Limits(board)
        self._heard: set[int] = set()
        self._keeper: Keeper | None = None
        self._said = False
        self._why = ""

    def run(self, front: int) -> int:
        """Start the worker, and see it to its end; returns its exit code.

        Args:
            front: the process that forked this one.

        Raises:
            WorkerDiedError: it ended badly; the domain was given back.
            ReleaseError: it ended badly, and the domain could not be given back.
        """
        os.setsid()
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        forwarding = Forwarding(self._hear)
        release()
        die_with(front, signal.SIGTERM)
        score = oom_score()
        set_oom_score(_OOM_SCORE)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        with held_back():
            worker = os.fork()
            if worker == 0:
                self._board.write(worker=os.getpid())
                for fd in (wake_read, wake_write, ours.detach()):
                    os.close(fd)
                set_oom_score(score)
                self._become_worker(supervisor, forwarding, theirs)
            self._board.write(worker=worker)
            forwarding.start(worker)
        theirs.close()
        try:
            status = self._watch(worker, wake_read, ours)
        except Exception as error:  # whatever that is, the guest comes first
            _log.exception("the supervisor failed")
            self._why = f"its supervisor failed: {error}"
            os.kill(worker, signal.SIGKILL)
            status = os.waitpid(worker, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in self._heard and not self._board.attached:
            return 0  # it had not come so far as to mind signals
        try:
            return ended(status, self._why, self._board, self._library, self._own_domid, self._keeper)
        finally:
            self._drop()

    def _become_worker(self, supervisor: int, forwarding: Forwarding, channel: socket.socket) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        forwarding.undo()
        os.setsid()
        release()
        die_with(supervisor, signal.SIGTERM)
        code = self._work(Link(self._board, channel))
        # The code is known: Ctrl-C has nothing more to end. SIGTERM has, should the next line hang.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        gc.collect()  # what a policy has left in the buffers of its files is written
        os._exit(code)

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
            pid, status = os.waitpid(worker, os.WNOHANG)
            if pid:
                return status
            if self._limits.remind():
                self._heard.add(signal.SIGTERM)  # it may mind no signals any more
                os.kill(worker, signal.SIGTERM)
            self._why = self._limits.broken() or self._blind()
            if self._why:
                os.kill(worker, signal.SIGKILL)
                return os.waitpid(worker, 0)[1]

    def _serve(self, channel: socket.socket) -> bool:
        """Do what the worker asks; False when it has closed its end."""
        try:
            packet = channel.recv(256)
        except ConnectionResetError:  # it died before it read the last answer
            return False
        if not packet:
            return False
        number, do, domid = json.loads(packet)
        # A question that came too late finds a ring already: its page cannot be had any more.
        if do == "drop" or not self._board.read("port"):
            self._drop()
        if do == "keep" and not self._board.read("port"):
            self._keep(domid)
        try:
            channel.send(b"%d" % number)
        except OSError:
            return False
        return True

    def _keep(self, domid: int) -> None:
        try:
            self._keeper = Keeper(Xc(self._library, own_domid=self._own_domid), domid)
        except XenintroError as error:
            _log.info("no second way to the ring of domain %d: %s", domid, error)

    def _drop(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def _blind(self) -> str:
        """Why a worker that does not look itself must be killed: its domain died, and is held by it."""
        stuck = self._limits.age("turn") if self._board.attached else 0.0
        if stuck > _QUIET and not self._said:
            self._said = True
            _log.warning("no answer from the policy for %.0f s: events are allowed at their deadline", _QUIET)
        if stuck > _BLIND and self._keeper is not None and self._keeper.is_gone():
            return "its domain was destroyed, and its loop did not come round to see that"
        return ""

    def _hear(self, number: int) -> None:
        self._heard.add(number)
        if number in self._ending:
            self._limits.told()
