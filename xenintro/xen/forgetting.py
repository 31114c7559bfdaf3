"""Journals of domains that are no more: there is nothing to undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import NoSuchDomainError
from xenintro.xen.domains import domain_info
from xenintro.xen.journal import Journal
from xenintro.xen.statedir import LockedError, lock, state_files

if TYPE_CHECKING:
    from xenintro.xen.entries import Entries
    from xenintro.xen.xc import Xc


def forget_the_gone(xc: Xc) -> None:
    """Remove what dead processes left about domains that are no more."""
    for path in state_files():
        try:
            journal = Journal(path, lock(path, create=False))
        except (OSError, LockedError):
            continue  # its process lives, or removes it just now
        if _lives(xc, journal.entries):
            journal.close()
        else:
            journal.remove()


def _lives(xc: Xc, entries: Entries) -> bool:
    """Whether a journal's domain is still there."""
    if entries.header is None:
        return False
    try:
        info = domain_info(xc, entries.header.domid, named=False)
    except NoSuchDomainError:
        return False
    return entries.is_about(info) and info.uuid == entries.header.uuid
