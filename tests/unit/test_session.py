"""The loop: one answer per request on every path, and only then anything else."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.slots import make_slot
from xenintro.abi import Flag, Interface, interface
from xenintro.codec import acknowledge, decode
from xenintro.errors import (
    AlreadyAnsweredError,
    CaptureError,
    DomainGoneError,
    IllegalResponseError,
    XenCallError,
)
from xenintro.guest import Guest
from xenintro.policy import chain
from xenintro.policy.python import PythonPolicy, PythonRule
from xenintro.response import Response, allow
from xenintro.session import Session
from xenintro.source import Missed, Request, SourceEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xenintro.answered import Answered
    from xenintro.events import Event
    from xenintro.verdict import Verdict

GUEST = Guest(domid=1, uuid="-", name="tiny", nr_vcpus=1)
V7 = interface("vm_event-7")
CR3 = make_slot(V7, 4, payload={"index": 1}, paused=True)
CPUID = make_slot(V7, 10, payload={"insn_length": 2}, paused=True)


class Batches:
    """A source that gives its batches one after the other, then says that the domain is gone."""

    def __init__(self, *batches: list[bytes]) -> None:
        self.interface: Interface = V7
        self.batches = list(batches)
        self.taken: list[bytes] = []
        self.answers: list[bytes] = []
        self.flushed = 0
        self.prepare_fails_at: int | None = None
        self.late_at: set[int] = set()
        self.missing: list[Missed] = []
        self.told_at = 0
        self.flushed_by_thread_ns = 0

    def wait(self, timeout: float) -> None:
        if not self.batches:
            raise DomainGoneError("no more")

    def requests(self) -> Iterator[Request]:
        for raw in self.batches.pop(0) if self.batches else []:
            assert len(self.answers) == len(self.taken), "the one before was not answered"
            self.taken.append(raw)
            yield Request(raw, self)

    def prepare(self, event: Event, response: Response | None) -> Response:
        if self.prepare_fails_at == len(self.taken):
            raise XenCallError("no", call="xc_set_mem_access", errno=12)
        return allow(event) if response is None else response

    def check(self, event: Event, response: Response, *, sent: bool = True) -> None:
        if response.name == "illegal":
            raise IllegalResponseError("not legal")

    def put(self, response: bytes) -> bool:
        late = len(self.taken) in self.late_at
        self.answers.append(acknowledge(self.taken[-1], V7) if late else response)
        if late:
            place = (len(self.taken) - 1 - self.told_at, True)
            self.missing.append(
                Missed(decode(self.taken[-1], V7), self.answers[-1], 1_000, 251_000_000, *place)
            )
        return not late

    def flush(self) -> int:
        self.flushed = len(self.answers)
        return self.flushed_by_thread_ns

    def missed(self) -> list[Missed]:
        missed, self.missing = self.missing, []
        self.told_at = len(self.taken)
        return missed


def judged(decide: Callable[[Event], object]) -> Callable[[Event], Verdict | None] | None:
    """A policy of one function."""
    return chain([PythonPolicy("test", [PythonRule("test", lambda event, _: decide(event))])], GUEST)


def run_to_the_end(session: Session) -> None:
    with pytest.raises(DomainGoneError):
        session.run()


@given(
    st.lists(st.lists(st.sampled_from([CR3, CPUID, bytes(400)]), max_size=8), max_size=5),
    st.sets(st.integers(1, 20)),
    st.one_of(st.none(), st.integers(1, 20)),
)
def test_one_answer(batches: list[list[bytes]], raising: set[int], prepare_fails_at: int | None) -> None:
    source = Batches(*batches)
    source.prepare_fails_at = prepare_fails_at

    def decide(event: Event) -> Response | None:
        if len(source.taken) in raising:
            raise ZeroDivisionError
        return None

    session = Session(source, decide=judged(decide))
    with pytest.raises((DomainGoneError, XenCallError)):
        session.run()
    assert len(source.answers) == len(source.taken) == source.flushed
    for raw, answer in zip(source.taken, source.answers, strict=True):
        assert decode(answer, V7).vcpu_id == decode(raw, V7).vcpu_id


def test_a_policy_that_raises_is_counted_and_the_event_allowed() -> None:
    source = Batches([CPUID])

    def decide(event: Event) -> Response:
        raise IllegalResponseError("not legal")

    session = Session(source, decide=judged(decide))
    run_to_the_end(session)
    assert session.summary.policy_errors == 1
    assert "set_registers" in decode(source.answers[0], V7).flag_names


def test_a_failing_hypercall_still_answers() -> None:
    source = Batches([CR3, CPUID, CR3])
    source.prepare_fails_at = 2
    with pytest.raises(XenCallError):
        Session(source).run()
    assert source.answers[1] == acknowledge(CPUID, V7)
    assert source.flushed == 2


def test_what_was_answered_is_shown_and_recorded_even_if_something_fails() -> None:
    source = Batches([CR3], [CR3, CPUID, CR3])
    source.prepare_fails_at = 3
    seen: list[Answered] = []
    recorded: list[Answered] = []
    session = Session(source, observers=[seen.extend], record=recorded.extend)
    with pytest.raises(XenCallError):
        session.run()
    assert [(one.event.reason, one.answer) for one in seen] == [
        ("write_ctrlreg", "allow"),
        ("write_ctrlreg", "allow"),
        ("cpuid", "plain"),
    ]
    assert recorded == seen
    assert [one.response for one in recorded] == source.answers


def test_everything_is_recorded_before_the_next_request_is_taken() -> None:
    source = Batches([CR3], [CPUID, CR3], [CPUID])
    recorded: list[Answered] = []

    def record(batch: list[Answered]) -> None:
        recorded.extend(batch)
        assert len(recorded) == len(source.taken) == source.flushed

    session = Session(source, wanted=lambda event: event.reason == "cpuid", limit=1, record=record)
    session.run()
    assert [one.event.raw for one in recorded] == source.taken == [CR3, CPUID, CR3, CPUID]
    assert [one.response for one in recorded] == source.answers


def test_what_the_deadline_thread_answered_is_recorded_with_what_it_sent() -> None:
    source = Batches([CR3, CPUID], [CR3])
    source.late_at = {2}
    recorded: list[Answered] = []
    run_to_the_end(Session(source, decide=judged(lambda event: Response.deny()), record=recorded.extend))
    assert [one.late for one in recorded] == [False, True, False]
    assert [one.response for one in recorded] == source.answers


def test_a_recording_that_fails_ends_the_session_with_everything_answered_and_shown() -> None:
    source = Batches([CR3, CR3], [CR3])
    seen: list[Answered] = []

    def record(batch: list[Answered]) -> None:
        raise CaptureError("no space")

    with pytest.raises(CaptureError):
        Session(source, record=record, observers=[seen.extend]).run()
    assert len(seen) == source.flushed == 2


def test_what_is_answered_on_the_way_out_is_counted_and_recorded() -> None:
    source = Batches([CR3])
    recorded: list[Answered] = []
    session = Session(source, record=recorded.extend)
    run_to_the_end(session)
    session.drained([Missed(decode(CPUID, V7), acknowledge(CPUID, V7), 1_000, 2_000, 0, taken=True)])
    assert session.summary.events == 2
    assert (recorded[-1].answer, recorded[-1].asked) == ("plain", False)


def test_observers_see_what_was_wanted_after_the_answers() -> None:
    source = Batches([CR3, CPUID], [CPUID])
    seen: list[str] = []

    def observe(batch: list[Answered]) -> None:
        assert source.flushed == len(source.taken)
        seen.extend(answered.event.reason for answered in batch)

    session = Session(source, wanted=lambda event: event.reason == "cpuid", observers=[observe])
    run_to_the_end(session)
    assert seen == ["cpuid", "cpuid"]
    assert session.summary.shown == 2
    assert session.summary.events == 3


def test_the_limit_counts_what_is_shown() -> None:
    source = Batches([CR3, CPUID, CPUID], [CPUID])
    session = Session(source, wanted=lambda event: event.reason == "cpuid", limit=1)
    assert session.run().shown == 1
    assert source.flushed == len(source.taken) == 4


def test_an_observer_that_raises_ends_the_session_with_everything_answered() -> None:
    source = Batches([CR3, CR3])

    def observe(batch: list[Answered]) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Session(source, observers=[observe]).run()
    assert source.flushed == 2


def test_duration_and_stop() -> None:
    assert Session(Batches([CR3]), duration=0).run().events == 0
    session = Session(Batches([CR3]))
    session.stop()
    assert session.run().events == 0


def test_asynchronous_events_pause_nobody() -> None:
    session = Session(Batches([make_slot(V7, 4)]))
    run_to_the_end(session)
    assert session.summary.pauses["write_ctrlreg"].count == 1
    assert session.summary.paused_ns == 0


def test_deadline_a_late_answer_is_dropped_counted_and_shown_as_what_was_sent() -> None:
    source = Batches([CR3, CPUID], [CR3])
    source.late_at = {2}
    seen: list[Answered] = []
    session = Session(source, decide=judged(lambda event: Response.deny()), observers=[seen.extend])
    run_to_the_end(session)
    assert session.summary.deadline_missed == 1
    assert session.summary.events == 3
    assert [(one.event.reason, one.answer, one.late) for one in seen] == [
        ("write_ctrlreg", "deny", False),
        ("cpuid", "allow", True),
        ("write_ctrlreg", "deny", False),
    ]
    assert seen[1].pause_ns == session.summary.pauses["cpuid"].max == 250_999_000


def test_what_the_loop_never_took_is_shown_in_the_order_of_the_ring_and_nobody_was_asked() -> None:
    source = Batches([CR3, CR3])
    untaken = [decode(make_slot(V7, 10, vcpu_id=vcpu_id, paused=True), V7) for vcpu_id in range(4)]
    source.missing = [
        Missed(event, acknowledge(event.raw, V7), 1_000, 2_000, before, False)
        for event, before in zip(untaken, [0, 1, 1, 2], strict=True)
    ]
    seen: list[Answered] = []
    run_to_the_end(Session(source, decide=judged(lambda event: None), observers=[seen.extend]))
    reasons = [(one.event.reason, one.event.vcpu_id) for one in seen]
    assert reasons == [
        ("cpuid", 0),
        ("write_ctrlreg", 0),
        ("cpuid", 1),
        ("cpuid", 2),
        ("write_ctrlreg", 0),
        ("cpuid", 3),
    ]
    assert [one.asked for one in seen] == [not one.late for one in seen]


def test_a_late_answer_that_nobody_tells_of_has_no_response() -> None:
    source = Batches([CR3])
    source.late_at = {1}
    seen: list[Answered] = []
    source.missed = list  # type: ignore[assignment,method-assign]  # the thread's log was full
    run_to_the_end(Session(source, observers=[seen.extend]))
    assert [(one.answer, one.response, one.late) for one in seen] == [("allow", b"", True)]


def test_an_end_without_an_error_and_the_clock_of_the_source() -> None:
    class Recorded(Batches):
        now_ns = 0

        def wait(self, timeout: float) -> None:
            if not self.batches:
                raise SourceEnded

        def requests(self) -> Iterator[Request]:
            self.now_ns += 1_000
            yield from super().requests()

        def flush(self) -> int:
            self.now_ns += 5
            return super().flush()

    source = Recorded([CR3], [CR3])
    seen: list[Answered] = []
    summary = Session(source, observers=[seen.extend], clock=lambda: source.now_ns).run()
    assert [one.taken_ns for one in seen] == [1_000, 2_005]
    assert [one.pause_ns for one in seen] == [5, 5]
    assert summary.duration_ns == source.now_ns


def test_a_pause_ends_when_the_deadline_thread_has_published_the_answer() -> None:
    class Stalled(Batches):
        """Nothing happens for long between the first answer and the second request."""

        def put(self, response: bytes) -> bool:
            in_time = super().put(response)
            self.flushed_by_thread_ns = self.flushed_by_thread_ns or monotonic_ns()
            return in_time

    source = Stalled([CR3, CPUID])
    seen: list[Answered] = []
    run_to_the_end(Session(source, observers=[seen.extend]))
    assert seen[0].answered_ns == source.flushed_by_thread_ns
    assert seen[1].answered_ns > source.flushed_by_thread_ns


def test_a_second_answer_is_refused() -> None:
    source = Batches()
    with Request(CR3, source) as request:
        request.answer(acknowledge(CR3, V7))
        with pytest.raises(AlreadyAnsweredError):
            request.answer(acknowledge(CR3, V7))
    assert len(source.answers) == 1


def test_an_observed_policy_changes_nothing() -> None:
    source = Batches([CR3, CPUID])
    seen: list[Answered] = []
    session = Session(
        source, decide=judged(lambda event: Response.deny()), enforce=False, observers=[seen.extend], limit=2
    )
    session.run()
    assert [answered.would for answered in seen] == ["deny", "deny"]
    assert [answered.answer for answered in seen] == ["allow", "allow"]
    assert not any(decode(answer, V7).flags & Flag.DENY for answer in source.answers)


def test_a_policy_that_does_not_come_back_is_interrupted_by_the_second_call() -> None:
    source = Batches([CR3, CPUID])
    asked = []

    def decide(event: Event) -> None:
        asked.append(event.reason)
        session.stop()
        session.stop()  # as a signal handler would, while the policy runs
        raise AssertionError("not reached")

    seen: list[Answered] = []
    session = Session(source, decide=judged(decide), observers=[seen.extend])
    session.run()
    assert asked == ["write_ctrlreg"], "no policy is asked once the session is to end"
    assert [one.asked for one in seen] == [False, False]
    assert session.summary.policy_errors == 1
    assert len(source.answers) == 2
