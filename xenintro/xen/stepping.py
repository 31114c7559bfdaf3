"""What lets an event happen on a live guest, where that depends on more than the event.

A page is opened for one step and closed again; ``-e singlestep`` steps on; interrupts are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import Flag
from xenintro.events import EmulUnimplemented, MemAccess, Singlestep
from xenintro.response import ALLOWED, SKIPPED, UNASKED, Response, allow
from xenintro.xen.arming import OPEN, left_access

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.events import Event
    from xenintro.traps import Trap

_STEP = Response(name="allow", flags=int(Flag.TOGGLE_SINGLESTEP))
_TOGGLE, _FAST, _EMULATE = int(Flag.TOGGLE_SINGLESTEP), int(Flag.FAST_SINGLESTEP), int(Flag.EMULATE)
_NEXT_INTERRUPT = int(Flag.GET_NEXT_INTERRUPT)


class StepState(msgspec.Struct, frozen=True):
    """What is under way between two requests, as far as answers depend on it.

    Attributes:
        open: vCPUs that step over a page.
        steps: vCPUs that step because an answer said so.
        emulated: pages whose access was emulated last, by vCPU.
    """

    open: tuple[int, ...] = ()
    emulated: dict[int, int] = {}
    steps: tuple[int, ...] = ()


class Stepping:
    """Per-vCPU state of single steps: which pages are open for whom, and who steps anyway.

    Args:
        traps: those in force.
        set_access: sets the permission of one page by name (``rwx``).
        claim: asked before a page is opened; False if the request was answered meanwhile (`Ring.claim`).
        can_step: the host has the monitor trap flag.

    Attributes:
        always: vCPUs step because somebody asked for it; no answer ends that.
        interrupts: every answer asks for the next interrupt, but that to an interrupt.
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
        self.always = any(trap.reason == "singlestep" and not trap.asked for trap in traps)
        self.interrupts = any(trap.reason == "interrupt" and not trap.asked for trap in traps)
        self._open: dict[int, set[int]] = {}  # vcpu_id -> pages open for its step
        self._steps: set[int] = set()  # vCPUs that step because an answer said so
        self._begun: int | None = None  # the vCPU whose step the last answer began
        self._emulated: dict[int, int] = {}  # vcpu_id -> page of the access emulated last

    def with_traps(self, traps: tuple[Trap, ...]) -> Stepping | None:
        """The same state under other traps; None if vCPUs would have to step, or stop stepping."""
        other = Stepping(traps, self._set_access, self._claim, can_step=self._can_step)
        if (other.always, other.interrupts) != (self.always, self.interrupts):
            return None
        other._open, other._steps, other._begun = self._open, self._steps, self._begun
        other._emulated = self._emulated
        return other

    @property
    def state(self) -> StepState:
        """What is under way; may be set before the first request, where there are no pages to close."""
        return StepState(tuple(self._open), dict(self._emulated), tuple(sorted(self._steps)))

    @state.setter
    def state(self, state: StepState) -> None:
        self._open = {vcpu_id: set() for vcpu_id in state.open}
        self._emulated = dict(state.emulated)
        self._steps = {*state.steps, *state.open}

    def prepare(self, event: Event, response: Response | None) -> Response:
        """The answer to send for the one that was chosen; see `xenintro.source.EventSource.prepare`.

        Raises:
            XenintroError: a page's permission could not be changed.
        """
        return self.allow(event) if response is None else self._answer(event, response)

    def late(self, event: Event) -> Response:
        """What the deadline thread lets the event happen with: `xenintro.xen.guard` has it as a table."""
        response = ALLOWED if isinstance(event, Singlestep) and self.always else allow(event)
        asks = self.interrupts and event.reason not in UNASKED
        if asks and (event.paused or event.reason in SKIPPED):
            return response.with_flags(Flag(_NEXT_INTERRUPT))
        return response

    def allow(self, event: Event) -> Response:
        """The answer that lets the event happen. Opens or closes pages on the way.

        Raises:
            XenintroError: a page's permission could not be changed.
        """
        self._begun = None
        return self._asking(event, self._stepped(event) or allow(event))

    def _answer(self, event: Event, response: Response) -> Response:
        """A policy's answer as this vCPU needs it: single-stepping is a flag that Xen toggles.

        A step is reported once; the vCPU goes on stepping where the answer to that asks for it again.
        """
        self._begun = None
        vcpu_id = event.vcpu_id
        if response.steps_over:
            return self._asking(event, self._step_over(event, response))
        self._emulated.pop(vcpu_id, None)
        if isinstance(event, MemAccess) and response.flags & _EMULATE:
            self._emulated[vcpu_id] = event.gfn
        ends = isinstance(event, Singlestep)
        if ends:
            self.close_pages(vcpu_id)
        asked = bool(response.flags & _TOGGLE)
        if response.flags & _FAST:
            self._steps.discard(vcpu_id)  # Xen ends that step by itself
        elif self.always:
            response = _toggling(response, toggles=False)
        elif ends:
            response = _toggling(response, toggles=not asked)
            (self._steps.add if asked else self._steps.discard)(vcpu_id)
        elif asked:
            begins = vcpu_id not in self._steps and self._claim()  # not where it will be dropped
            response = _toggling(response, toggles=begins)
            if begins:
                self._begin_step(vcpu_id)
        return self._asking(event, response)

    def _asking(self, event: Event, response: Response) -> Response:
        asks = self.interrupts and event.reason not in UNASKED
        if asks and event.paused and not response.flags & _NEXT_INTERRUPT:
            return response.with_flags(Flag(_NEXT_INTERRUPT))
        return response

    def _stepped(self, event: Event) -> Response | None:
        vcpu_id = event.vcpu_id
        emulated = self._emulated.pop(vcpu_id, None)
        if isinstance(event, MemAccess):
            trap = self._trap_of(event.gfn)
            if (trap is not None and trap.step) or vcpu_id in self._open or vcpu_id in self._steps:
                return self._open_page(vcpu_id, event.gfn)
            self._emulated[vcpu_id] = event.gfn
        elif isinstance(event, Singlestep):
            self.close_pages(vcpu_id)
            self._steps.discard(vcpu_id)
            return ALLOWED if self.always else None
        elif isinstance(event, EmulUnimplemented) and self._can_step and emulated is not None:
            return self._open_page(vcpu_id, emulated)
        return None

    def _step_over(self, event: Event, response: Response) -> Response:
        """The access happens on the processor: its page is open for one step."""
        gfn = event.gfn if isinstance(event, MemAccess) else self._emulated.get(event.vcpu_id)
        self._emulated.pop(event.vcpu_id, None)
        if gfn is None:  # nothing was emulated that could have failed
            return self._stepped(event) or allow(event)
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
        if isinstance(event, Singlestep) or (claimed and self._begun == vcpu_id):
            self._steps.discard(vcpu_id)  # the thread has ended the step, or it never began
        if isinstance(event, MemAccess | Singlestep) or (claimed and isinstance(event, EmulUnimplemented)):
            self.close_pages(vcpu_id)

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
        self._open.setdefault(vcpu_id, set()).add(gfn)
        # The flag is a toggle: a vCPU that steps already (its instruction touches two pages) keeps stepping.
        if self.always or vcpu_id in self._steps:
            return ALLOWED
        self._begin_step(vcpu_id)
        return _STEP

    def _begin_step(self, vcpu_id: int) -> None:
        self._steps.add(vcpu_id)
        self._begun = vcpu_id

    def _trap_of(self, gfn: int) -> Trap | None:
        return next((trap for trap in self._pages if trap.covers(gfn)), None)


def _toggling(response: Response, *, toggles: bool) -> Response:
    flags = response.flags | _TOGGLE if toggles else response.flags & ~_TOGGLE
    return response if flags == response.flags else msgspec.structs.replace(response, flags=flags)
