"""The process that the shell knows: it passes signals on and ends as the worker did."""

from __future__ import annotations

import os
import signal
import sys
from time import monotonic, sleep
from typing import TYPE_CHECKING

from xenintro.errors import WorkerDiedError, XenintroError
from xenintro.supervise.board import Board
from xenintro.supervise.limits import Limits
from xenintro.supervise.signals import ENDING, Forwarding, held_back
from xenintro.supervise.supervisor import Supervisor
from xenintro.supervise.takeover import ended
from xenintro.xen.process import adopt_orphans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenintro.supervise.link import Link
    from xenintro.xen.library import Library

#: Seconds that a worker may take to say who it is, and between two looks at one without a supervisor.
_BORN, _LOOK = 1.0, 0.05


def supervised(
    library: Library,
    own_domid: int,
    work: Callable[[Link], int],
    guarded: Callable[[Callable[[], int]], int],
    ending: Sequence[int] = ENDING,
) -> int:
    """Run a function in a worker process under a supervisor; returns the exit code.

    Three processes: this one stays with the terminal, the supervisor and the worker have sessions of their
    own, so that neither Ctrl-C nor a signal to the whole job reaches them but through here. If this one or
    the supervisor dies, the worker is told to end; if the worker dies, the supervisor gives the domain back.

    Args:
        library: loaded before, so that neither process pays for it; each opens its own handles.
        own_domid: the domain that these processes run in.
        work: runs in the worker; returns an exit code.
        guarded: calls a function and makes of its errors a message and an exit code.
        ending: the signals that tell the worker to end.

    Raises:
        WorkerDiedError, ReleaseError: the supervisor died too; see `xenintro.supervise.takeover.ended`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    board = Board()
    adopt_orphans()
    forwarding = Forwarding(_stop_with_the_job)
    front = os.getpid()
    try:
        with held_back():
            supervisor = os.fork()
            if supervisor == 0:
                forwarding.undo()
                watched = Supervisor(
                    library, own_domid, board, lambda link: guarded(lambda: work(link)), ending
                )
                os._exit(guarded(lambda: watched.run(front)))
            forwarding.start(supervisor)
        code = _code(supervisor)
        if code < 0:
            return _without_supervisor(library, own_domid, board, forwarding)
        if code == XenintroError.exit_code and board.attached:
            # It has said what it failed on; whatever that was, the guest gets a second chance.
            return ended(signal.SIGKILL, "its supervisor failed", board, library, own_domid)
        # One more Ctrl-C has nothing to end; it would be a traceback of the interpreter's exit.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        return code
    finally:
        forwarding.undo()


def _code(supervisor: int) -> int:
    """How the supervisor ended. Whoever stops it is not let: it could save nobody."""
    while True:
        _, status = os.waitpid(supervisor, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        os.kill(supervisor, signal.SIGCONT)


def _stop_with_the_job(number: int) -> None:
    """Ctrl-Z stops this process alone: the worker holds back its output, and goes on answering."""
    if number == signal.SIGTSTP:
        os.kill(os.getpid(), signal.SIGSTOP)


def _without_supervisor(library: Library, own_domid: int, board: Board, forwarding: Forwarding) -> int:
    """The supervisor was killed; its worker is ours now, has been told to end, and is seen to that."""
    limits, why = Limits(board), ""
    limits.told()
    worker = _worker(board)
    if worker:
        forwarding.start(worker)
    while worker:
        try:
            pid, status = os.waitpid(worker, os.WNOHANG)
        except ChildProcessError:  # the supervisor had seen its end, and was about to give the domain back
            break
        if pid:
            if (code := ended(status, why, board, library, own_domid)) == 0:
                raise WorkerDiedError(
                    "the supervisor of the watching process was killed",
                    why="somebody killed it, or the kernel ran out of memory (see dmesg)",
                    hint="the watching process ended in order; the domain was given back",
                )
            return code
        if limits.remind():
            os.kill(worker, signal.SIGTERM)
        why = limits.broken()
        if why:
            os.kill(worker, signal.SIGKILL)
        sleep(_LOOK)
    return ended(signal.SIGKILL, why, board, library, own_domid)


def _worker(board: Board) -> int:
    """The worker's process; 0 if there never was one."""
    until = monotonic() + _BORN
    while not (worker := board.read("worker")) and monotonic() < until:
        sleep(_LOOK)
    return worker
