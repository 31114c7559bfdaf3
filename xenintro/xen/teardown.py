"""Giving a domain back: a list of steps, each tried even if the one before failed."""

from __future__ import annotations

import logging
from time import monotonic, sleep
from typing import TYPE_CHECKING, NoReturn

from xenintro.errors import DomainGoneError, NoSuchDomainError, ReleaseError, XenintroError
from xenintro.xen.domains import called
from xenintro.xen.undo import InViews, Steps, undo, writes_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenintro.xen.attachment import Attachment
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.undo import Change
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)

#: How long vCPUs get to apply what they were answered with before the ring goes away.
_SETTLE_SECONDS = 0.5
#: The same where a register write is lost with the ring.
_WRITES_SECONDS = 5.0
_RUN_AT_MOST = 0.02
_RUN_STEP = 0.001
#: How long xc_monitor_disable is tried again while it says EBUSY.
_DISABLE_SECONDS = 1.0


class Teardown:
    """The way out of one attachment.

    Args:
        xc: an open libxc.
        attachment: what is given up.
        changes: what may have been changed in the domain.
    """

    def __init__(self, xc: Xc, attachment: Attachment, changes: Sequence[Change]) -> None:
        self._xc = xc
        self._attachment = attachment
        self._changes = changes
        self._writes_wait = writes_wait(xc.release, changes)

    def run(self) -> list[Exception]:
        """Traps off, everything answered, ring gone, unpaused as often as paused; returns what failed."""
        attachment = self._attachment
        failures: list[Exception] = []
        settle = self._settle_standing if self._stands_still() else self._settle
        if attachment.enabled:
            running, still = (self._undo(paused=paused) for paused in (False, True))
            answered = self._by_deadline()
            for step in (*running, attachment.pause, *still, settle, self._disable):
                tried(step, failures)
            # The deadline thread ends a step with a toggle: where that was off already, it began one. And the
            # end of a fast step switches the view.
            kinds = (Steps, InViews) if self._by_deadline() != answered else (InViews,)
            again = [change for change in self._changes if isinstance(change, kinds)]
            for step in undo(self._xc, attachment.info.domid, again, paused=True):
                tried(step, failures)
        if failures and self._is_gone():
            # It died on the way: Xen took everything back itself, and only the mapping is left to give up.
            failures.clear()
        return failures + attachment.release()

    def _by_deadline(self) -> int:
        guard = self._attachment.guard
        return 0 if guard is None else guard.answered

    def _stands_still(self) -> bool:
        """Whether the vCPUs will not run however long we wait: paused by others, crashed, or gone."""
        try:
            return self._attachment.check().paused
        except XenintroError as error:
            _log.info("while releasing: %s", error)
            return True

    def _is_gone(self) -> bool:
        try:
            self._attachment.check()
        except DomainGoneError:
            return not self._attachment.enabled
        except XenintroError:
            return False
        return False

    def _undo(self, *, paused: bool) -> list[Callable[[], None]]:
        return undo(self._xc, self._attachment.info.domid, self._changes, paused=paused)

    def _settle_standing(self) -> None:
        """Answer what is there, for vCPUs that do not run.

        Raises:
            ReleaseError: a register write of theirs would be lost with the ring, which is kept.
        """
        self._attachment.drain()
        attachment = self._attachment
        if not (self._writes_wait and attachment.enabled and attachment.ring.used):
            return
        try:
            attachment.check()
        except XenintroError as error:  # it will not run again
            _log.info("while releasing: %s", error)
        else:
            self._keep_ring("somebody else has paused the domain")

    def _settle(self) -> None:
        """Answer until nothing is left, letting the vCPUs apply answers that only act when they run.

        xc_monitor_disable discards registers and emulation that a vCPU has not picked up, and on Xen 4.6 to
        4.13 the register write itself (985ba41f66). vCPUs that waited for a slot come to the ring only now.
        """
        deadline = monotonic() + (_WRITES_SECONDS if self._writes_wait else _SETTLE_SECONDS)
        quiet_rounds = 0
        while quiet_rounds < 2 and monotonic() < deadline:
            answered = self._attachment.drain()
            quiet = self._let_run() and not answered
            quiet_rounds = quiet_rounds + 1 if quiet else 0
        self._attachment.drain()
        if quiet_rounds < 2 and self._writes_wait:
            self._keep_ring("a vCPU does not run")

    def _keep_ring(self, why: str) -> NoReturn:
        self._attachment.keep_ring()
        domid = self._attachment.info.domid
        raise ReleaseError(
            f"the monitor ring of domain {domid} is still there",
            why=f"{why}: a register write that it has not done yet would be lost with the ring, and crash it",
            hint=f"when it runs: xenintro rescue --domid {domid}",
        )

    def _let_run(self) -> bool:
        """Let the domain run for a moment; whether every vCPU ran or has nothing to do."""
        before = self._vcpu_times()
        limit = monotonic() + _RUN_AT_MOST
        self._attachment.unpause()
        try:
            while True:
                sleep(_RUN_STEP)
                after = self._vcpu_times()
                ran = len(before) == len(after) == self._attachment.info.nr_vcpus and all(
                    blocked or time > before[vcpu_id][0] for vcpu_id, (time, blocked) in after.items()
                )
                if ran or monotonic() >= limit:
                    return ran
        finally:
            self._attachment.pause()

    def _vcpu_times(self) -> dict[int, tuple[int, bool]]:
        """How long each vCPU has run, and whether it need not; one that Xen does not tell of is not in it."""
        times = {}
        for vcpu_id in range(self._attachment.info.nr_vcpus):
            try:
                info = self._xc.vcpu_info(self._attachment.info.domid, vcpu_id)
            except NoSuchDomainError:
                times[vcpu_id] = 0, True  # a number that no vCPU has
                continue
            except XenintroError as error:
                _log.info("while releasing: %s", error)
                continue
            times[vcpu_id] = info.cpu_time_ns, info.blocked or not info.online
        return times

    def _disable(self) -> None:
        """Give up the ring; EBUSY means that a vCPU still waits for a slot: it gets one, and runs."""
        deadline = monotonic() + _DISABLE_SECONDS
        while True:
            try:
                return self._attachment.disable()
            except ReleaseError:
                if monotonic() >= deadline:
                    raise
            self._attachment.drain()
            self._let_run()


def tried(step: Callable[[], object], failures: list[Exception]) -> bool:
    """Run a step of a teardown; whether it succeeded, else its error is kept."""
    try:
        step()
    except Exception as error:
        _log.info("while releasing: %s", error)
        failures.append(error)
        return False
    return True


def release_error(info: DomainInfo, failures: list[Exception]) -> ReleaseError:
    """What is said when a domain could not be given back cleanly."""
    reasons = (f"{f.what}: {f.why}" if isinstance(f, XenintroError) and f.why else str(f) for f in failures)
    return ReleaseError(
        f"could not release {called(info)} cleanly",
        why="; ".join(dict.fromkeys(reasons)),
        hint=f"try again: xenintro rescue --domid {info.domid}",
    )
