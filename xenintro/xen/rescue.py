"""Giving back a domain whose monitor died: free who waits, undo what it changed, leave no ring."""

from __future__ import annotations

import errno
import logging
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING

import msgspec

from xenintro.codec import unpause
from xenintro.errors import (
    DomainBusyError,
    NotSupportedError,
    ReleaseError,
    XenCallError,
    XenintroError,
)
from xenintro.units import format_ns
from xenintro.xen.attachment import Attachment
from xenintro.xen.domains import called, domain_info, still_there
from xenintro.xen.journal import Journal
from xenintro.xen.leftovers import whatever_was_left
from xenintro.xen.lifeline import death_of
from xenintro.xen.liveness import check_nobody_watches
from xenintro.xen.pauses import Pauses, take_pauses_back
from xenintro.xen.preflight import ring_in_use, ring_interface
from xenintro.xen.standstill import standing_still
from xenintro.xen.statedir import state_file
from xenintro.xen.teardown import Teardown, release_error, tried
from xenintro.xen.undo import AccessRequired, Pages, TrapOn, undo

if TYPE_CHECKING:
    from xenintro.abi import Interface
    from xenintro.xen.attachment import Kept
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)


class Rescued(msgspec.Struct, frozen=True):
    """What a rescue did.

    Attributes:
        domain: how it is called.
        journal: a dead xenintro had left word of what it changed; else everything possible was undone.
        adopted: the dead monitor's own ring was taken over and answered.
        answered: requests that were answered on it.
        traps: that were switched off; 0 without a journal, when nobody knows which were on.
        pages: whose permissions were reset.
        pauses: that were taken back.
        took_ns: how long it took.
    """

    domain: str
    journal: bool
    adopted: bool
    answered: int
    traps: int
    pages: int
    pauses: int
    took_ns: int

    def __str__(self) -> str:
        """One line for people."""
        done = [_counted(self.answered, "request") + " answered"] if self.answered else []
        done += [_counted(self.traps, "trap") + " off"] if self.traps else []
        done += [_counted(self.pages, "page") + " open again"] if self.pages else []
        done += [_counted(self.pauses, "pause") + " taken back"] if self.pauses else []
        return (
            f"{self.domain} was given back: {', '.join([*done, 'no ring left'])} ({format_ns(self.took_ns)})"
        )


def rescue(
    xc: Xc, domid: int, *, force: bool = False, keeper: Kept | None = None, owner_dead: bool = False
) -> Rescued:
    """Give back a domain whose monitor died, whoever that was. Doing it again does no harm.

    Args:
        xc: an open libxc.
        domid: the domain.
        force: even if its monitor seems to live.
        keeper: the dead monitor's ring page, mapped while it lived.
        owner_dead: the process that wrote the journal is known to be dead: whose ring it is need not be
            guessed from the processes that live.

    Raises:
        NoSuchDomainError: there is none.
        DomainBusyError: its monitor lives.
        NotSupportedError: a PV domain.
        DomainGoneError: it has died, or been shut down; of its monitor nothing is left.
        ReleaseError: not everything could be given back.
    """
    started_ns = monotonic_ns()
    info = domain_info(xc, domid)
    if not info.hvm:
        raise NotSupportedError(f"{called(info)} is a PV domain", why="it never has a monitor")
    journal = Journal.left(info, force=force)
    found = journal is not None
    try:
        known_dead = owner_dead and (keeper is not None or (journal is not None and journal.entries.has_ring))
        if not force and not known_dead:
            _check_nobody_watches(xc, info, journal)
        interface = ring_interface(xc)
        if journal is None:
            journal = Journal.begin_anyhow(info, interface.id, whatever_was_left(xc, info))
        elif journal.entries.unknown:
            journal.record_anyhow(whatever_was_left(xc, info))
        work = _Rescue(xc, info, interface, journal)
        work.run(keeper)
    finally:
        if journal is not None:
            journal.close()
    changes = journal.entries.changes if found else []
    return Rescued(
        domain=called(info),
        journal=found,
        adopted=work.adopted,
        answered=work.answered,
        traps=sum(isinstance(change, TrapOn) for change in changes),
        pages=sum(change.count for change in changes if isinstance(change, Pages)),
        pauses=work.pauses,
        took_ns=monotonic_ns() - started_ns,
    )


def left_behind(info: DomainInfo) -> bool:
    """Whether a xenintro has left word of what it changed in the domain."""
    return state_file(info.uuid).exists()


def needs_rescue(xc: Xc, info: DomainInfo, *, force: bool = False) -> bool:
    """Whether there is a sign that a monitor died: word of it, a ring, or vCPUs that do not run.

    Raises:
        DomainBusyError: its monitor lives.
    """
    if not info.hvm:
        return False
    journal = Journal.left(info, force=force)
    if journal is not None:
        journal.close()
        return True
    return bool(ring_in_use(xc, info.domid) or standing_still(xc, info))


def _check_nobody_watches(xc: Xc, info: DomainInfo, journal: Journal | None) -> None:
    try:
        check_nobody_watches(xc, info, journal.entries.port if journal is not None else None)
    except DomainBusyError:
        if journal is not None and journal.entries.port is None:
            # It died before it had a ring, and the ring there is another's: only the pauses are its own.
            take_pauses_back(xc, info, journal)
            journal.remove()
        raise


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class _Rescue:
    def __init__(self, xc: Xc, info: DomainInfo, interface: Interface, journal: Journal) -> None:
        self._xc = xc
        self._info = info
        self._interface = interface
        self._journal = journal
        self._failures: list[Exception] = []
        self.adopted = False
        self.answered = 0
        self.pauses = 0

    def run(self, keeper: Kept | None) -> None:
        """All of it; the journal is gone afterwards.

        Raises:
            ReleaseError: it stays then.
            DomainGoneError: nothing is left of the monitor, nor of the domain's life.
        """
        failures = self._failures
        try:
            attachment = (keeper and self._adopt(keeper)) or self._start_over()
        except XenintroError as error:
            failures.append(error)
        else:
            for step in (partial(self._answer, attachment), attachment.unpause, self._take_pauses_back):
                tried(step, failures)
            failures += Teardown(self._xc, attachment, self._journal.entries.changes).run()
        if failures:
            raise self._failed(failures) from failures[0]
        self._journal.remove()
        if (died := death_of(self._info, still_there(self._xc, self._info))) is not None:
            raise died

    def _adopt(self, keeper: Kept) -> Attachment | None:
        """The dead monitor's ring, if it is still there and can be had."""
        if ring_in_use(self._xc, self._info.domid) is False:
            return None
        try:
            attachment = self._attach(keeper)
        except (XenintroError, ValueError) as error:
            _log.info("its ring cannot be taken over: %s", error)
            return None
        self.adopted = True
        return attachment

    def _start_over(self) -> Attachment:
        """A new ring, with every vCPU that waited for an answer on the old one freed.

        The domain does not run until that ring is there: traps without one crash the guest on some releases.
        """
        pauses = Pauses(self._xc, self._info.domid, self._journal)
        pauses.take()
        try:
            self._take_away_ring()
            self._free_vcpus()
            return self._attach()
        finally:
            tried(pauses.give_back, self._failures)

    def _attach(self, keeper: Kept | None = None) -> Attachment:
        return Attachment(self._xc, self._info, self._interface, self._journal, keeper)

    def _take_away_ring(self) -> None:
        """Disable the ring of the dead.

        Raises:
            ReleaseError: vCPUs sleep inside Xen until there is room on it, and nobody can make room.
        """
        domid = self._info.domid
        # What harms a guest without a ring comes first; 4.6 forgets no trap by itself.
        harmful = [c for c in self._journal.entries.changes if isinstance(c, AccessRequired | TrapOn)]
        failures: list[Exception] = []
        for step in undo(self._xc, domid, harmful, paused=False):
            tried(step, failures)
        try:
            self._xc.monitor_disable(domid)
        except ReleaseError as error:
            raise ReleaseError(
                f"{called(self._info)} cannot be given back",
                why="vCPUs sleep inside Xen until there is room on the ring, which died with its monitor "
                "(EBUSY from xc_monitor_disable)",
                hint=f"only destroying it helps: xl destroy {domid}",
            ) from error
        except XenCallError as error:
            if error.errno != errno.EINVAL:  # no ring
                raise

    def _free_vcpus(self) -> None:
        """Answer for every vCPU, asked or not: Xen unpauses those that wait for an answer.

        Afterwards Xen counts more free slots than the ring has: it must go (RING_FREE_REQUESTS).
        """
        attachment = self._attach()
        try:
            attachment.answer_unasked(
                [unpause(self._interface, vcpu_id) for vcpu_id in range(self._info.nr_vcpus)]
            )
        finally:
            failures = attachment.release()
        if failures:
            raise release_error(self._info, failures)

    def _answer(self, attachment: Attachment) -> None:
        self.answered += attachment.drain()

    def _take_pauses_back(self) -> None:
        self.pauses = take_pauses_back(self._xc, self._info, self._journal)

    def _failed(self, failures: list[Exception]) -> XenintroError:
        """What is said; a domain that is no more needs nothing."""
        now = still_there(self._xc, self._info)
        if now is None and (died := death_of(self._info, now)) is not None:
            self._journal.remove()
            return died
        if len(failures) == 1 and isinstance(failures[0], ReleaseError):
            return failures[0]
        return release_error(self._info, failures)
