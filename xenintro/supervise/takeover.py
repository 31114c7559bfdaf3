"""What is done, and said, when a worker has ended badly."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from xenintro.errors import (
    DomainGoneError,
    NoSuchDomainError,
    ReleaseError,
    WorkerDiedError,
    XenintroError,
)
from xenintro.supervise.signals import name_of
from xenintro.xen.domains import called, domain_info
from xenintro.xen.rescue import left_behind, rescue
from xenintro.xen.xc import Xc

if TYPE_CHECKING:
    from xenintro.supervise.board import Board
    from xenintro.xen.keeper import Keeper
    from xenintro.xen.library import Library

_log = logging.getLogger(__name__)

_WHY = "somebody killed it, it crashed, or the kernel ran out of memory (see dmesg)"

_UNTOUCHED = "no domain is left changed"
_HINT_GONE = "see: xenintro list"


def ended(
    status: int, why: str, board: Board, library: Library, own_domid: int, keeper: Keeper | None = None
) -> int:
    """The exit code of a worker that has left nothing behind; else its domain is given back.

    Then what it has answered and not recorded is.

    Args:
        status: as waitpid gave it.
        why: it was killed by us; empty if it was not.
        board: what it wrote.
        library: for a handle of our own.
        own_domid: the domain that this process runs in.
        keeper: a second way to its ring.

    Raises:
        WorkerDiedError: it ended badly, and its domain is as it was.
        ReleaseError: its domain could not be given back.
    """
    if keeper is not None and not (board.read("port") and keeper.has(board.read("tag"))):
        keeper = None
    page = None if keeper is None else keeper.page()
    try:
        return _given_back(status, why, board, library, own_domid, keeper)
    finally:
        _record(board, page)


def _record(board: Board, page: bytes | None) -> None:
    try:
        recovered = board.pending.recover(page)
    except OSError as error:
        _log.warning("what was answered last could not be recorded: %s", error)
        return
    if recovered is not None:
        count = recovered.answered + recovered.unanswered
        lost = f"; {recovered.lost} are lost" if recovered.lost else ""
        _log.warning("recorded what it had not: %d requests in %s%s", count, recovered.path, lost)


def _given_back(
    status: int, why: str, board: Board, library: Library, own_domid: int, keeper: Keeper | None
) -> int:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0 and not board.attached:
        return code
    if not board.attached:
        raise WorkerDiedError(f"the watching process {_how(code, why)}", why=why or _WHY, hint=_UNTOUCHED)
    domid, port = board.read("domid"), board.read("port")
    with Xc(library, own_domid=own_domid) as xc:
        try:
            info = domain_info(xc, domid)
        except NoSuchDomainError as error:
            raise DomainGoneError(
                f"domain {domid} was destroyed", why=why or _WHY, hint=_HINT_GONE
            ) from error
        # Without a ring and a journal it had not come so far as to change anything.
        touched = port or left_behind(info)
        done = str(rescue(xc, domid, keeper=keeper, owner_dead=True)) if touched else _UNTOUCHED
    board.leave()
    if code == ReleaseError.exit_code:  # it has said what it could not do; now that is done
        _log.warning("after all, %s", done)
        return XenintroError.exit_code
    reason = why or (_WHY if code < 0 else "a policy, or a library that it uses, ended the process")
    raise WorkerDiedError(f"the process that watched {called(info)} {_how(code, why)}", why=reason, hint=done)


def _how(code: int, why: str) -> str:
    if why:
        return "had to be killed"
    return f"was killed by {name_of(-code)}" if code < 0 else f"ended with exit code {code}"
