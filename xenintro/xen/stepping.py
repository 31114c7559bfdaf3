"""What lets an event happen on a live guest, where that depends on more than the event.

A page is opened for one step and closed again; ``-e singlestep`` steps on; interrupts are asked for again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import Flag
from xenintro.events import EmulUnimplemented, MemAccess, Singlestep
from xenintro.response import ALLOWED, SKIPPED, Response, allow
from xenintro.xen.arming import OPEN, left_access

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.events import Event
    from xenintro.traps import Trap

_STEP = Response(name="allow", flags=int(Flag.TOGGLE_SINGLESTEP))
_NEXT_INTERRUPT = int(Flag.GET_NEXT_INTERRUPT)


class StepState(msgspec.Struct, frozen=True):
    """What is under way between two requests, as far as answers depend on it.

    Attributes:
        open: vCPUs that step over a page.
        emulated: pages whose access was emulated last, by vCPU.
    """

    open: tuple[int, ...] = ()
    emulated: dict[int, int] = {}


class Stepping:
    """Per-vCPU state of single steps: which pages are open for whom, and who steps anyway.

    Args:
        traps: those in force.
        set_access: sets the permission of one page by name (``rwx``).
        claim: asked before a page is opened; False if the request was answered meanwhile (`Ring.claim`).
        can_step: the host has the monitor trap flag.

    Attributes:
        always: vCPUs step because somebody asked for it; no answer ends that.
        interrupts: every answer asks for the next interrupt.
    """

    def __init__(
        self,
        traps: tuple[Trap, ...],
        set_access: Callable[[int, str], None],
        claim: Callable[[], bool],
        *,
        can_step: bool,
    ) -> None:
        self._pages = tuple(trap for trap in traps if trap.reason == "mem_access")
        self._set_access = set_access
        self._claim = claim
        self._can_step = can_step
        self.always = any(trap.reason == "singlestep" for trap in traps)
        self.interrupts = any(trap.reason == "interrupt" for trap in traps)
        self._open: dict[int, set[int]] = {}  # vcpu_id -> pages open for its step
        self._begun: int | None = None  # the vCPU whose step began with the last page opened
        self._emulated: dict[int, int] = {}  # vcpu_id -> page of the access emulated last

    def with_traps(self, traps: tuple[Trap, ...]) -> Stepping | None:
        """The same state under other traps; None if vCPUs would have to step, or stop stepping."""
        other = Stepping(traps, self._set_access, self._claim, can_step=self._can_step)
        if (other.always, other.interrupts) != (self.always, self.interrupts):
            return None
        other._open, other._begun, other._emulated = self._open, self._begun, self._emulated
        return other

    @property
    def state(self) -> StepState:
        """What is under way; may be set before the first request, where there are no pages to close."""
        return StepState(tuple(self._open), dict(self._emulated))

    @state.setter
    def state(self, state: StepState) -> None:
        self._open = {vcpu_id: set() for vcpu_id in state.open}
        self._emulated = dict(state.emulated)

    def prepare(self, event: Event, response: Response | None) -> Response:
        """The answer to send for the one that was chosen; see `xenintro.source.EventSource.prepare`.

        Raises:
            XenintroError: a page's permission could not be changed.
        """
        if response is None:
            return self.allow(event)
        if response.steps_over:
            return self.step_over(event, response)
        if isinstance(event, Singlestep):
            self.close_pages(event.vcpu_id)
        return response

    def late(self, event: Event) -> Response:
        """What the deadline thread lets the event happen with: `xenintro.xen.guard` has it as a table."""
        response = ALLOWED if isinstance(event, Singlestep) and self.always else allow(event)
        if self.interrupts and (event.paused or event.reason in SKIPPED):
            return response.with_flags(Flag(_NEXT_INTERRUPT))
        return response

    def allow(self, event: Event) -> Response:
        """The answer that lets the event happen. Opens or closes pages on the way.

        Raises:
            XenintroError: a page's permission could not be changed.
        """
        response = self._stepped(event) or allow(event)
        if self.interrupts and event.paused:
            return response.with_flags(Flag(_NEXT_INTERRUPT))
        return response

    def _stepped(self, event: Event) -> Response | None:
        vcpu_id = event.vcpu_id
        emulated = self._emulated.pop(vcpu_id, None)
        if isinstance(event, MemAccess):
            trap = self._trap_of(event.gfn)
            if (trap is not None and trap.step) or vcpu_id in self._open:
                return self._open_page(vcpu_id, event.gfn)
            self._emulated[vcpu_id] = event.gfn
        elif isinstance(event, Singlestep):
            self.close_pages(vcpu_id)
            return ALLOWED if self.always else None
        elif isinstance(event, EmulUnimplemented) and self._can_step and emulated is not None:
            return self._open_page(vcpu_id, emulated)
        return None

    def step_over(self, event: Event, response: Response) -> Response:
        """The answer that lets the access happen on the processor: its page is open for one step.

        Raises:
            XenintroError: the page's permission could not be changed.
        """
        gfn = event.gfn if isinstance(event, MemAccess) else self._emulated.get(event.vcpu_id)
        self._emulated.pop(event.vcpu_id, None)
        if gfn is None:  # nothing was emulated that could have failed
            return self.allow(event)
        return msgspec.structs.replace(self._open_page(event.vcpu_id, gfn), name=response.name)

    def missed(self, event: Event, *, claimed: bool) -> None:
        """The deadline thread has let this event happen: an access was emulated, a step ended.

        Args:
            event: the event.
            claimed: the loop had claimed it, so a page may be open for a step that never began.

        Raises:
            XenintroError: a page's permission could not be changed.
        """
        vcpu_id = event.vcpu_id
        self._emulated.pop(vcpu_id, None)
        if isinstance(event, MemAccess):
            self._emulated[vcpu_id] = event.gfn
        elif not isinstance(event, Singlestep) and not (claimed and isinstance(event, EmulUnimplemented)):
            return  # a trap that was claimed to be injected opened no page
        never_began = claimed and self._begun == vcpu_id
        steps_on = vcpu_id in self._open and not isinstance(event, Singlestep) and not never_began
        self.close_pages(vcpu_id)
        if steps_on:  # the step that an access before it began is still to be reported
            self._open[vcpu_id] = set()

    def close_pages(self, vcpu_id: int) -> None:
        """The vCPU's step is done: pages that were open for it trap again.

        Raises:
            XenintroError: a page's permission could not be changed.
        """
        for gfn in self._open.pop(vcpu_id, ()):
            trap = self._trap_of(gfn)
            if trap is not None and not any(gfn in pages for pages in self._open.values()):
                self._set_access(gfn, left_access(trap))

    def _open_page(self, vcpu_id: int, gfn: int) -> Response:
        if not self._claim():
            return ALLOWED  # it will be dropped: nothing may go with it
        self._set_access(gfn, OPEN)
        stepping = vcpu_id in self._open or self.always
        self._begun = None if vcpu_id in self._open else vcpu_id
        self._open.setdefault(vcpu_id, set()).add(gfn)
        # The flag is a toggle: a vCPU that steps already (its instruction touches two pages) keeps stepping.
        return ALLOWED if stepping else _STEP

    def _trap_of(self, gfn: int) -> Trap | None:
        return next((trap for trap in self._pages if trap.covers(gfn)), None)
