"""Pages open for one step, toggles that stay in balance, interrupts asked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.slots import make_slot
from xenintro.abi import Flag, interface
from xenintro.codec import decode
from xenintro.response import Response
from xenintro.traps import parse_traps
from xenintro.xen.stepping import Stepping

if TYPE_CHECKING:
    from xenintro.events import Event

V7 = interface("vm_event-7")
V7_REASONS = {name: code for code, name in V7.reasons.items()}
REQUEST = V7_REASONS["guest_request"]


def event(reason: int, vcpu_id: int = 0, **payload: int) -> Event:
    return decode(make_slot(V7, reason, vcpu_id=vcpu_id, payload=payload, paused=True), V7)


def access(gfn: int, vcpu_id: int = 0) -> Event:
    return event(1, vcpu_id, gfn=gfn, flags=2)


def step(vcpu_id: int = 0) -> Event:
    return event(7, vcpu_id)


class Guest:
    def __init__(self, traps: str) -> None:
        self.pages: dict[int, str] = {}
        self.in_time = True
        self.steps = Stepping(parse_traps(traps), self.pages.__setitem__, lambda: self.in_time, can_step=True)

    def flags(self, event: Event, answer: Response | None = None) -> int:
        return self.steps.prepare(event, answer).flags


def test_without_step_an_access_is_emulated_and_no_page_touched() -> None:
    guest = Guest("mem:w@0x10")
    assert guest.flags(access(0x10)) == Flag.EMULATE
    assert guest.pages == {}


def test_a_page_is_open_for_one_step() -> None:
    guest = Guest("mem:w@0x10:step")
    assert guest.flags(access(0x10)) == Flag.TOGGLE_SINGLESTEP
    assert guest.pages == {0x10: "rwx"}
    assert guest.flags(step()) == Flag.TOGGLE_SINGLESTEP
    assert guest.pages == {0x10: "rx"}


def test_an_instruction_on_two_pages_toggles_once() -> None:
    guest = Guest("mem:w@0x10-0x11:step")
    assert guest.flags(access(0x10)) == Flag.TOGGLE_SINGLESTEP
    assert guest.flags(access(0x11)) == 0
    assert guest.flags(step()) == Flag.TOGGLE_SINGLESTEP
    assert guest.pages == {0x10: "rx", 0x11: "rx"}


def test_a_page_stays_open_while_another_vcpu_steps_on_it() -> None:
    guest = Guest("mem:w@0x10:step")
    guest.flags(access(0x10, 0))
    guest.flags(access(0x10, 1))
    guest.flags(step(0))
    assert guest.pages == {0x10: "rwx"}
    guest.flags(step(1))
    assert guest.pages == {0x10: "rx"}


def test_a_vcpu_that_steps_anyway_is_never_toggled() -> None:
    guest = Guest("mem:w@0x10:step,singlestep")
    assert guest.flags(step()) == 0
    assert guest.flags(access(0x10)) == 0
    assert guest.flags(step()) == 0
    assert guest.pages == {0x10: "rx"}


def test_what_cannot_be_emulated_is_stepped_over() -> None:
    guest = Guest("mem:w@0x10")
    guest.flags(access(0x10))
    assert guest.flags(event(14)) == Flag.TOGGLE_SINGLESTEP
    assert guest.pages == {0x10: "rwx"}
    guest.flags(step())
    assert guest.pages == {0x10: "rx"}


def test_every_answer_but_that_to_an_interrupt_asks_for_the_next() -> None:
    guest = Guest("interrupt,cr3")
    assert guest.flags(event(4)) == Flag.GET_NEXT_INTERRUPT
    assert guest.flags(event(V7_REASONS["interrupt"])) == 0
    asynchronous = decode(make_slot(V7, 4), V7)
    assert guest.flags(asynchronous) == 0


def test_what_comes_too_late_opens_no_page() -> None:
    guest = Guest("mem:w@0x10:step")
    guest.in_time = False
    guest.flags(access(0x10))
    guest.steps.missed(access(0x10), claimed=False)
    assert guest.pages == {}
    guest.in_time = True
    assert guest.flags(access(0x10)) == Flag.TOGGLE_SINGLESTEP


def test_a_step_that_the_deadline_thread_ended_closes_the_pages() -> None:
    guest = Guest("mem:w@0x10:step")
    guest.flags(access(0x10))
    guest.steps.missed(step(), claimed=False)
    assert guest.pages == {0x10: "rx"}
    assert guest.flags(access(0x10)) == Flag.TOGGLE_SINGLESTEP


def test_a_page_opened_for_an_answer_that_came_too_late_is_closed() -> None:
    guest = Guest("mem:w@0x10:step")
    guest.flags(access(0x10))
    guest.steps.missed(access(0x10), claimed=True)
    assert guest.pages == {0x10: "rx"}
    assert guest.flags(access(0x10)) == Flag.TOGGLE_SINGLESTEP, "its vCPU never began to step"


@pytest.mark.parametrize("claimed", [True, False])
def test_a_vcpu_whose_second_access_was_missed_steps_on(claimed: bool) -> None:
    guest = Guest("mem:w@0x10-0x11:step")
    guest.flags(access(0x10))
    if claimed:
        guest.flags(access(0x11))
    guest.steps.missed(access(0x11), claimed=claimed)
    assert set(guest.pages.values()) == {"rx"}
    assert guest.flags(access(0x10)) == 0, "toggling would end the step that is on"
    assert guest.flags(step()) == Flag.TOGGLE_SINGLESTEP
    assert set(guest.pages.values()) == {"rx"}


@pytest.mark.parametrize(("code", "claimed"), [(4, False), (6, True)], ids=["cr3", "injected-int3"])
def test_other_events_leave_a_step_alone(code: int, claimed: bool) -> None:
    guest = Guest("mem:w@0x10:step,cr3,int3")
    guest.flags(access(0x10))
    guest.steps.missed(event(code), claimed=claimed)
    assert guest.pages == {0x10: "rwx"}


def test_what_the_deadline_thread_could_not_emulate_is_stepped_over() -> None:
    guest = Guest("mem:w@0x10")
    guest.steps.missed(access(0x10), claimed=False)
    assert guest.flags(event(14)) == Flag.TOGGLE_SINGLESTEP
    assert guest.pages == {0x10: "rwx"}


def test_a_step_that_an_answer_asks_for_is_one_unless_it_is_asked_for_again() -> None:
    guest = Guest("singlestep:asked,guest-request")
    assert not guest.steps.always
    on = Response.single_step()
    assert guest.flags(event(REQUEST), on) == Flag.TOGGLE_SINGLESTEP
    assert guest.flags(step(), on) == 0, "it steps already: the flag would end that"
    assert guest.flags(event(REQUEST), on) == 0, "within the step"
    assert guest.flags(step(), Response.plain()) == Flag.TOGGLE_SINGLESTEP
    assert guest.flags(event(REQUEST), on) == Flag.TOGGLE_SINGLESTEP
    assert guest.flags(step()) == Flag.TOGGLE_SINGLESTEP, "nobody had a say"


def test_a_step_whose_answer_came_too_late_has_not_begun() -> None:
    guest = Guest("singlestep:asked,guest-request")
    on = Response.single_step()
    request = event(REQUEST)
    assert guest.flags(request, on) == Flag.TOGGLE_SINGLESTEP
    guest.steps.missed(request, claimed=True)
    assert guest.flags(event(REQUEST), on) == Flag.TOGGLE_SINGLESTEP
    guest.steps.missed(step(), claimed=False)  # the thread has ended the step
    assert guest.flags(event(REQUEST), on) == Flag.TOGGLE_SINGLESTEP
    guest.in_time = False
    assert guest.flags(event(REQUEST, 1), on) == 0


def test_a_vcpu_that_steps_anyway_is_not_toggled_by_answers() -> None:
    guest = Guest("singlestep,guest-request")
    for answer in (Response.single_step(), Response.plain()):
        assert guest.flags(event(REQUEST), answer) == 0
        assert guest.flags(step(), answer) == 0


def test_an_access_is_stepped_over_where_a_policy_says_so() -> None:
    guest = Guest("mem:w@0x10")
    assert guest.flags(access(0x10), Response.step_over()) == Flag.TOGGLE_SINGLESTEP
    assert guest.pages == {0x10: "rwx"}
    assert guest.flags(step(), Response.plain()) == Flag.TOGGLE_SINGLESTEP
    assert guest.pages == {0x10: "rx"}


def test_what_a_policy_has_emulated_in_vain_is_stepped_over() -> None:
    guest = Guest("mem:w@0x10")
    guest.flags(access(0x10), Response.emulate(write=False))
    assert (
        guest.flags(event(V7_REASONS["emul_unimplemented"]), Response.step_over()) == Flag.TOGGLE_SINGLESTEP
    )
    assert guest.pages == {0x10: "rwx"}


def test_interrupts_are_asked_for_in_answers_of_policies_too() -> None:
    assert Guest("interrupt,cr3").flags(event(REQUEST), Response.plain()) == Flag.GET_NEXT_INTERRUPT
    assert Guest("interrupt:asked,cr3").flags(event(REQUEST), Response.plain()) == 0
