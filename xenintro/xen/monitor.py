"""One watched domain: attach, traps on, requests in, answers out, and back to how it was."""

from __future__ import annotations

import logging
from functools import cached_property
from time import monotonic, monotonic_ns, time_ns
from typing import TYPE_CHECKING

import msgspec

from xenintro import legality
from xenintro.errors import DomainGoneError, NotSupportedError, ReleaseError, XenintroError
from xenintro.guest import Guest
from xenintro.legality import Machine
from xenintro.source import Missed, Request
from xenintro.xen.arming import arm, has_singlestep
from xenintro.xen.attachment import Attachment
from xenintro.xen.domctl import SINCE, check_deny, defer_writes
from xenintro.xen.guard import DEFAULT_DEADLINE, InjectTarget, check_deadline
from xenintro.xen.injection import inject
from xenintro.xen.journal import Journal
from xenintro.xen.keeper import Watcher, address_of
from xenintro.xen.late import Late
from xenintro.xen.memory import LiveMemory
from xenintro.xen.occupied import check_unoccupied
from xenintro.xen.preflight import (
    check_domain,
    check_traps,
    has_altp2m,
    helper_traps,
    needs_steps,
    ring_interface,
)
from xenintro.xen.rearming import Exchange
from xenintro.xen.stepping import Stepping
from xenintro.xen.teardown import Teardown, release_error
from xenintro.xen.undo import InViews, Steps, WritesWait, change_of, is_write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from xenintro.events import Event
    from xenintro.response import Response
    from xenintro.traps import Trap
    from xenintro.xen.guard import Guard
    from xenintro.xen.stepping import StepState
    from xenintro.xen.undo import Change
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)

#: Seconds between looks at whether the domain still lives: our channel never tells, xenstored may not either.
_CHECK_EVERY = 0.5


class Monitor:
    """Watches one domain; an `xenintro.source.EventSource`. Use it as a context manager.

    Leaving the context gives the domain back: see `xenintro.xen.teardown`. What could not be given back comes
    out as ReleaseError, and any error of a call as DomainGoneError if the domain has died.

    Args:
        xc: an open libxc.
        domid: the domain.
        traps: what to ask for.
        watcher: who takes over if this process dies.
        deadline: seconds after which a thread lets an event happen that nobody has answered.
        denying: answers will be sent that deny register writes; see `deny`.

    Attributes:
        info: the domain as it was when attached.
        guest: what policies are told of it.
        interface: the layout of its ring.
        deadline: seconds.
        failures: what went wrong in giving the domain back.
        unanswered: requests without an answer then; zero unless a step failed.
        drained: what was answered then, with nobody asked.

    Raises:
        NoSuchDomainError, DomainBusyError, NotSupportedError, UsageError: nothing was changed then.
    """

    def __init__(
        self,
        xc: Xc,
        domid: int,
        traps: tuple[Trap, ...],
        *,
        watcher: Watcher | None = None,
        deadline: float = DEFAULT_DEADLINE,
        denying: bool = False,
    ) -> None:
        check_deadline(deadline)
        self.deadline = deadline
        self._xc = xc
        self._domid = domid
        self._watcher = watcher or Watcher()
        self.info = check_domain(xc, domid)
        self.guest = Guest(
            *(domid, self.info.uuid, self.info.name, self.info.nr_vcpus),
            LiveMemory(xc, domid),
            offset_ns=time_ns() - monotonic_ns(),
        )
        self.interface = ring_interface(xc)
        capabilities = xc.capabilities(domid)
        check_traps(xc, domid, traps, capabilities)
        check_unoccupied(xc, self.info)
        self._helpers = helper_traps(traps, capabilities)
        self._traps = (*self._helpers, *traps)
        self._can_step = has_singlestep(capabilities)
        self._denying = denying
        self._deferred = False
        self._machines: tuple[Machine, Machine] | None = None
        if denying:
            self.check_deny(traps)
        self._steps_from_start = needs_steps(traps)
        self._stepping = Stepping(traps, self._set_access, self._claim, can_step=self._can_step)
        self._late = Late(self.interface)
        self._at_start = 0  # requests that were drained before anything was armed
        self._changes: list[Change] = []
        self._next_check = 0.0
        self._attachment: Attachment | None = None
        self.failures: list[Exception] = []
        self.unanswered = 0
        self.drained: list[Missed] = []

    def __enter__(self) -> Self:
        self._watcher.taking(self._domid)
        try:
            changes = [change for trap in self._traps if (change := change_of(trap)) is not None]
            if self._must_defer(self._traps):
                changes.append(WritesWait())
            self._journal = Journal.begin(self.info, self.interface.id, [*self._stepping_off(), *changes])
        except BaseException:
            self._watcher.released()
            raise
        try:
            self._attachment = Attachment(
                self._xc, self.info, self.interface, self._journal, record=self._watcher.record
            )
        except BaseException as error:
            self._end_journal(clean=not isinstance(error, ReleaseError))
            raise
        try:
            self._watcher.attached(*self._attachment.mark())
            self._start(self._attachment)
        except BaseException as error:
            self._leave(error)
            raise
        self._watcher.watching()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    @property
    def machine(self) -> Machine:
        """What answers may rely on while the domain is watched."""
        machine, if_sent = self._machines or self._look_at_machines()
        return if_sent if self._must_defer(self._traps) else machine

    def steps(self) -> StepState:
        """What is under way after everything that was answered and told so far.

        Raises:
            XenintroError: a page's permission could not be changed.
        """
        self._late.learn(self._stepping)
        return self._stepping.state

    # EventSource

    def wait(self, timeout: float) -> None:
        """See `xenintro.source.EventSource.wait`."""
        self._learn()
        died = self._ring().wait(timeout)
        self._watcher.turning()
        now = monotonic()
        if died or now >= self._next_check:
            self._next_check = now + _CHECK_EVERY
            self._ring().check()

    def requests(self) -> Iterator[Request]:
        """See `xenintro.source.EventSource.requests`."""
        take = self._ring().ring.take
        while (raw := take()) is not None:
            yield Request(raw, self)

    def check(self, event: Event, response: Response, *, sent: bool = True) -> None:
        """See `xenintro.source.EventSource.check`."""
        machine, if_sent = self._machines or self._look_at_machines()
        legality.check(event, response, machine if sent else if_sent)

    def prepare(self, event: Event, response: Response | None) -> Response:
        """See `xenintro.source.EventSource.prepare`."""
        if self._late.unlearned or self._ring().ring.after_missed:
            self._learn()
        response = self._stepping.prepare(event, response)
        if (response.altp2m_idx or response.fast_singlestep_view) and InViews() not in self._changes:
            self._journal.record([InViews()])
            self._changes.append(InViews())
        if response.reinject or response.injection is not None:
            inject(self._guard(), self._inject_target, event, response.injection)
        return response

    def put(self, response: bytes) -> bool:
        """See `xenintro.source.EventSource.put`."""
        in_time = self._ring().put(response)
        if not in_time:
            self._watcher.turning()  # a slow policy, not one that hangs
        return in_time

    def flush(self) -> int:
        """See `xenintro.source.EventSource.flush`."""
        return self._ring().flush()

    def missed(self) -> list[Missed]:
        """See `xenintro.source.EventSource.missed`."""
        if self._attachment is not None:
            self._late.collect(self._guard())
            self._late.told_at = self._ring().ring.takes
        return self._late.told()

    def rearm(self, traps: tuple[Trap, ...], *, denying: bool = False) -> bool:
        """Exchange the traps while the domain is watched; nothing that happens in it is missed.

        Args:
            traps: the new ones.
            denying: from now on, see `deny`.

        Returns:
            False if that needs a new attachment: vCPUs step or report interrupts with the old traps or the
            new ones, or the domain could not be unpaused.

        Raises:
            NotSupportedError, UsageError: a trap that cannot be; nothing was changed.
            HalfArmedError: Xen refused, and the old traps need a new attachment.
            XenintroError: Xen refused; the old traps are on.
        """
        capabilities = self._xc.capabilities(self._domid)
        check_traps(self._xc, self._domid, traps, capabilities)
        if denying or self._denying:
            self.check_deny(traps)
        stepping = self._stepping.with_traps(traps)
        if stepping is None or needs_steps(traps) != self._steps_from_start:
            return False
        # Helpers stay: a step or an emulation may be under way.
        reasons = {trap.reason for trap in traps}
        helpers = tuple(dict.fromkeys((*self._helpers, *helper_traps(traps, capabilities))))
        wanted = (*(trap for trap in helpers if trap.reason not in reasons), *traps)
        exchange = Exchange(self._xc, self._domid, self._traps, wanted)
        self._changes += exchange.changes
        self._denying = self._denying or denying
        if self._must_defer(traps):
            self._journal.record([WritesWait()])
            self._defer_writes()
        running = exchange.run(self._ring(), self._journal)
        self._helpers, self._traps, self._stepping = helpers, wanted, stepping
        self._machines = None
        return running

    def deny(self) -> None:
        """From now on, whatever the traps, register writes wait for answers that may deny them.

        Where they do not wait anyway that holds until the domain is given back: Xen has no way back.

        Raises:
            NotSupportedError: register writes cannot be denied here.
            XenintroError: it failed.
        """
        self.check_deny(self._traps)
        self._denying = True
        if self._must_defer(self._traps):
            self._journal.record([WritesWait()])
            self._defer_writes()

    def check_deny(self, traps: tuple[Trap, ...]) -> None:
        """Whether writes that these traps report can be denied. Nothing is changed.

        Raises:
            NotSupportedError: register writes cannot be denied here.
        """
        if self._must_defer(traps, denying=True):
            check_deny(self._xc, self._domid)

    def note_denials(self) -> None:
        """Say it where answers that are only noted now could not be sent."""
        try:
            self.check_deny(self._traps)
        except NotSupportedError as error:
            _log.warning("the policy can be observed, not enforced: %s: %s", error.what, error.why)

    # Details

    def _must_defer(self, traps: tuple[Trap, ...], *, denying: bool = False) -> bool:
        """Whether a denial needs more than its flag, and it has not been done yet."""
        wanted = (denying or self._denying) and any(map(is_write, traps))
        return wanted and not self._deferred and self._xc.release >= SINCE

    def _defer_writes(self) -> None:
        self._changes.append(WritesWait())
        defer_writes(self._xc, self._domid)
        self._deferred = True
        self._machines = None
        _log.info("register writes wait for their answers")

    def _look_at_machines(self) -> tuple[Machine, Machine]:
        """What answers may rely on, and those that are only noted: as if they were sent."""
        machine = Machine(
            singlestep=self._can_step,
            singlestep_armed=any(trap.reason == "singlestep" for trap in self._traps),
            altp2m=has_altp2m(self._xc, self._domid),
            control_registers=self._deferred,
        )
        self._machines = machine, msgspec.structs.replace(machine, control_registers=True)
        return self._machines

    def _start(self, attachment: Attachment) -> None:
        attachment.guarded(
            self.deadline,
            singlestep_always=self._stepping.always,
            interrupts=self._stepping.interrupts,
            beat=address_of(self._watcher.beat),
        )
        self._at_start = attachment.drain()
        self._late.told_at = attachment.ring.takes
        self._changes += self._stepping_off()
        if self._must_defer(self._traps):  # noted in the journal already
            self._watcher.changing()
            self._defer_writes()
        for trap in self._traps:
            # Noted before: a call that fails midway through a range of pages has changed some of them.
            if (change := change_of(trap)) is not None:
                self._changes.append(change)
            self._watcher.changing()
            arm(self._xc, self._domid, trap)
            _log.info("armed %s", trap.text)
        if self._steps_from_start:
            for vcpu_id in range(self.info.nr_vcpus):
                self._xc.debug_control(self._domid, vcpu_id, single_step=True)
        attachment.unpause()

    def _leave(self, error: BaseException | None) -> None:
        """Give the domain back; raises if that failed, or if the domain's death explains the error."""
        attachment, self._attachment = self._attachment, None
        if attachment is None:
            return
        self._watcher.changing()
        gone = attachment.death() if isinstance(error, XenintroError) else None
        self.failures = Teardown(self._xc, attachment, self._changes).run()
        self._late.told_at -= self._at_start
        if attachment.guard is not None:
            self._late.collect(attachment.guard)
        self._end_journal(clean=not self.failures)
        self.unanswered, self.drained = attachment.unanswered, attachment.drained
        _log.info("released, %d requests unanswered", self.unanswered)
        if self.failures:
            raise release_error(self.info, self.failures) from error
        if gone is not None and not isinstance(error, DomainGoneError):
            raise gone from error

    def _end_journal(self, *, clean: bool) -> None:
        """What could not be given back is left to a rescue."""
        if clean:
            self._journal.remove()
            self._watcher.released()
        else:
            self._journal.close()

    def _stepping_off(self) -> list[Change]:
        return [Steps(self.info.nr_vcpus)] if self._can_step else []

    def _claim(self) -> bool:
        return self._ring().ring.claim()

    @cached_property
    def _inject_target(self) -> InjectTarget:
        return InjectTarget(self._xc.library.address("xc_hvm_inject_trap"), self._xc.address, self._domid)

    def _guard(self) -> Guard:
        guard = self._ring().guard
        assert guard is not None
        return guard

    def _learn(self) -> None:
        """Before the next request is prepared."""
        self._late.collect(self._guard())
        self._late.learn(self._stepping)

    def _ring(self) -> Attachment:
        assert self._attachment is not None, "not attached"
        return self._attachment

    def _set_access(self, gfn: int, access: str) -> None:
        self._xc.set_mem_access(self._domid, access, gfn, 1)
