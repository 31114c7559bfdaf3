"""The process that the shell knows: it passes signals on and ends as the worker did."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from xenintro.supervise.board import Board
from xenintro.supervise.signals import PASSED, Forwarding
from xenintro.supervise.supervisor import Supervisor
from xenintro.supervise.takeover import ended
from xenintro.xen.process import adopt_orphans

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.supervise.link import Link
    from xenintro.xen.library import Library


def supervised(
    library: Library,
    own_domid: int,
    work: Callable[[Link], int],
    guarded: Callable[[Callable[[], int]], int],
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
    """
    sys.stdout.flush()
    sys.stderr.flush()
    board = Board()
    adopt_orphans()
    forwarding = Forwarding(_stop_with_the_job)
    # What comes before the supervisor has its own handlers waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)
    try:
        supervisor = os.fork()
        if supervisor == 0:
            forwarding.undo()
            watched = Supervisor(library, own_domid, board, lambda link: guarded(lambda: work(link)))
            os._exit(guarded(watched.run))
        forwarding.start(supervisor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
        code = os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])
        return code if code >= 0 else _without_supervisor(library, own_domid, board)
    finally:
        forwarding.undo()


def _stop_with_the_job(number: int) -> None:
    """Ctrl-Z stops this process alone: the worker holds back its output, and goes on answering."""
    if number == signal.SIGTSTP:
        os.kill(os.getpid(), signal.SIGSTOP)


def _without_supervisor(library: Library, own_domid: int, board: Board) -> int:
    """The supervisor was killed, its worker is ours now and has been told to end."""
    worker = board.read("worker")
    status = os.waitpid(worker, 0)[1] if worker else signal.SIGKILL
    return ended(status, "", board, library, own_domid)
