"""replay_equals_live: same capture and policy, same responses, byte for byte."""

from __future__ import annotations

from random import Random
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.capture.recorded import FakeMonitor, Fate
from tests.slots import interfaces, make_slot
from xenintro.abi import Flag, Interface, interface
from xenintro.answered import Answered
from xenintro.capture.info import CaptureInfo
from xenintro.capture.replay import RecordedMemory, ReplaySource, guest_of, traps_of
from xenintro.capture.verify import Verification, difference
from xenintro.codec import acknowledge, decode, encode
from xenintro.errors import DamagedInputError, GuestReadError
from xenintro.guest import GuestRead
from xenintro.legality import Machine
from xenintro.response import Response
from xenintro.session import Session
from xenintro.traps import asked_for
from xenintro.verdict import Verdict
from xenintro.xen.stepping import StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xenintro.events import Event

V7 = interface("vm_event-7")
TRAPS = [
    "mem:rwx@0x0-0xfff:step,cr0,cr3,cr4,xcr0,msr:lstar,cpuid,int3,debug,desc,guest-request",
    "mem:w@0x0-0x7:step,mem:rx@0x8-0xf,cr3,emul-unimplemented,interrupt,cpuid",
    "mem:w@0x0-0xf,singlestep,interrupt,cr3,guest-request:async,privileged-call",
    "cr3,cpuid",
]
#: Some legal, some not, wherever they are given.
ANSWERS: list[Response | None] = [
    None,
    Response.plain(),
    Response.deny(),
    Response.emulate(),
    Response.emulate(write=False),
    Response.emulate(read_data=b"\x2a\0\0\0"),
    Response.set_registers({"rip": 0x1234, "rax": 7}),
    Response.set_registers({"pc": 0x1234}),
    Response.single_step(),
    Response.fast_singlestep(1),
    Response.step_over(),
    Response.reinjected(),
    Response.plain().with_flags(Flag.GET_NEXT_INTERRUPT),
    Response.plain().in_view(1),
]


class Table:
    """A policy that answers by reason and vCPU, every third time nothing, and by the clock now and then."""

    name, level, tags = "table", "warning", ("T1",)

    def __init__(self, answers: list[Response | None], stop_at: int | None) -> None:
        self.answers = answers
        self.stop_at = stop_at
        self.asked = 0
        self.session: Session | None = None

    def message(self, event: Event) -> str | None:
        return None

    def decide(self, event: Event) -> Verdict | None:
        self.asked += 1
        if self.asked == self.stop_at and self.session is not None:
            self.session.stop()
        if self.asked % 7 == 0:
            raise ZeroDivisionError
        if self.asked % 3 == 0:
            return None
        number = (event.reason_code or 0) * 3 + event.vcpu_id
        return Verdict(self.answers[number % len(self.answers)], self)


#: Reasons that depend on what went before, or are answered in a way of their own; more often than others.
FREQUENT = ("mem_access", "mem_access", "singlestep", "emul_unimplemented", "write_ctrlreg", "cpuid")


def fates(layout: Interface, rng: Random, most: int) -> list[list[Fate]]:
    """Drains of requests of a few pages and vCPUs."""
    return [[_fate(layout, rng) for _ in range(rng.randint(1, 5))] for _ in range(rng.randint(1, most))]


def _fate(layout: Interface, rng: Random) -> Fate:
    codes = {name: code for code, name in layout.reasons.items()} or {"": 0}
    usual = [codes[name] for name in FREQUENT if name in codes]
    code = rng.choice(usual if usual and rng.random() < 0.7 else [*codes.values(), 99])
    payload = {}
    if "gfn" in layout.payloads.get(layout.reasons.get(code, ""), {}):
        payload["gfn"] = rng.randint(0, 20)
    raw = make_slot(
        layout,
        code,
        vcpu_id=rng.randint(0, 1),
        paused=rng.random() < 0.85,
        payload=payload,
        registers={name: 0x1000 for name in ("rip", "pc") if name in layout.registers},
    )
    late = rng.random() < 0.3
    return Fate(raw, late, late and rng.random() < 0.5, late and rng.random() < 0.5)


def live(
    layout: Interface, info: CaptureInfo, batches: list[list[Fate]], policy: Table, *, stops: bool
) -> list[Answered]:
    """What a session records."""
    recorded: list[Answered] = []
    traps = traps_of(info, layout)
    source = FakeMonitor(layout, traps, info.machine or Machine(), batches)
    session = Session(
        source,
        decide=policy.decide,
        enforce=info.mode == "enforce",
        wanted=asked_for(traps),
        record=recorded.extend,
        clock=source.clock,
    )
    policy.session = session if stops else None
    session.run()
    return recorded


def replayed(
    layout: Interface,
    info: CaptureInfo,
    capture: Iterable[Answered],
    decide: Callable[[Event], Verdict | None] | None,
) -> tuple[list[Answered], Verification]:
    """The same through the same session code."""
    verification = Verification()
    answered: list[Answered] = []

    def record(batch: list[Answered]) -> None:
        answered.extend(batch)
        verification(batch)

    source = ReplaySource(verification.recorded(capture), info, layout)
    session = Session(
        source,
        decide=decide and source.deciding(decide),
        enforce=info.mode == "enforce",
        wanted=asked_for(traps_of(info, layout)),
        record=record,
        clock=source.now_ns,
    )
    source.given_back = session.drained
    session.run()
    return answered, verification


def told(answered: Answered) -> tuple[object, ...]:
    rule = answered.rule and answered.rule.name
    return (
        answered.event.raw,
        answered.response,
        answered.answer,
        answered.would,
        rule,
        *answered[3:5],
        answered.late,
    )


@settings(max_examples=100)
@given(st.data())
def test_replay_equals_live(data: st.DataObject) -> None:
    layout = data.draw(st.one_of(interfaces(), st.just(V7)))
    info = CaptureInfo(
        abi=layout.id,
        arch=layout.arch,
        events=data.draw(st.sampled_from(TRAPS)),
        mode=data.draw(st.sampled_from(["observe", "enforce"])),
        machine=Machine(*data.draw(st.tuples(*[st.booleans()] * 4))),
        started_ns=1,
    )
    batches = fates(layout, Random(data.draw(st.integers(0, 1 << 32))), 10)
    answers = data.draw(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=8))
    stop_at = data.draw(st.one_of(st.none(), st.integers(1, 30)))
    capture = live(layout, info, batches, Table(answers, stop_at), stops=True)
    again, verification = replayed(layout, info, capture, Table(answers, stop_at).decide)
    assert verification.first is None, verification.first.words()
    assert [told(one) for one in again] == [told(one) for one in capture]
    assert verification.compared == len(capture)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_file_that_goes_on_where_another_ended(data: st.DataObject) -> None:
    """Rotation cuts between two drains: a vCPU may be in the middle of a step."""
    layout = V7
    batches = fates(layout, Random(data.draw(st.integers(0, 1 << 32))), 8)
    cut = data.draw(st.integers(0, len(batches) - 1))
    info = CaptureInfo(abi=layout.id, events=data.draw(st.sampled_from(TRAPS)), machine=Machine())
    files: list[list[Answered]] = [[]]
    states = [StepState()]
    source = FakeMonitor(layout, traps_of(info, layout), Machine(), batches)

    def record(batch: list[Answered]) -> None:
        files[-1].extend(batch)
        if len(files) == 1 and len(files[0]) > cut:
            states.append(source.steps())
            files.append([])

    Session(source, record=record, clock=source.clock).run()
    for file, state in zip(files, states, strict=False):
        again, verification = replayed(layout, replace(info, steps=state), file, None)
        assert verification.first is None, verification.first.words()
        assert len(again) == len(file)


def test_what_was_answered_while_the_domain_was_given_back_is_no_decision() -> None:
    raw = make_slot(V7, 1, payload={"gfn": 5, "flags": 2}, paused=True)
    event = decode(raw, V7)
    capture = [Answered(event, "plain", acknowledge(raw, V7), 10, 20, asked=False)]
    asked: list[Event] = []
    again, verification = replayed(V7, CaptureInfo(abi=V7.id, mode="enforce"), capture, asked.append)
    assert (asked, verification.differing, verification.compared) == ([], 0, 1)
    assert again == capture


def test_a_request_without_an_answer_is_answered_and_not_compared() -> None:
    event = decode(make_slot(V7, 4, payload={"index": 1}, paused=True), V7)
    capture = [Answered(event, "unanswered", b"", 10, 10)]
    again, verification = replayed(V7, CaptureInfo(abi=V7.id), capture, None)
    assert [one.answer for one in again] == ["allow"]
    assert (verification.compared, verification.unanswered) == (0, 1)


def test_a_policy_reads_what_was_read_then() -> None:
    class Reads:
        reads = (GuestRead(0, 0x1000, b"abcdef"), GuestRead(0, 0x5000, b"z"))

    guest = guest_of(CaptureInfo(abi=V7.id), RecordedMemory(Reads()))
    assert guest.read(0x1000, 6) == b"abcdef"
    assert guest.read(0x1002, 3) == b"cde"
    with pytest.raises(GuestReadError, match="cannot read guest memory at 0x1004"):
        guest.read(0x1004, 3)


def test_at_its_own_pace() -> None:
    event = decode(make_slot(V7, 4, payload={"index": 1}, paused=True), V7)
    response = encode(event, Response.allow(event))
    times = [0, 30_000_000, 60_000_000]
    capture = [Answered(event, "allow", response, at, at + 5) for at in times]
    source = ReplaySource(capture, CaptureInfo(abi=V7.id), V7, pace=2)
    begun = monotonic()
    Session(source, clock=source.now_ns).run()
    assert monotonic() - begun >= 0.03


def test_traps_that_cannot_be_are_damage() -> None:
    with pytest.raises(DamagedInputError, match="the traps that this capture names cannot be"):
        traps_of(CaptureInfo(abi=V7.id, events="cr3,nonsense"), V7)
    assert (
        traps_of(CaptureInfo(abi="mem_event-4.1.0", events="interrupt"), interface("mem_event-4.1.0")) == ()
    )


SLOT = make_slot(V7, 4, vcpu_id=1, payload={"index": 1}, paused=True, registers={"rip": 0x1000, "rax": 1})


@pytest.mark.parametrize(
    ("recorded", "now", "words"),
    [
        (Response.plain(), Response.deny(), ["flags recorded vcpu_paused, now vcpu_paused deny"]),
        (
            Response.set_registers({"rip": 0x1002}),
            Response.set_registers({"rip": 0x1003, "rax": 2}),
            ["regs.rax recorded 0x1, now 0x2", "regs.rip recorded 0x1002, now 0x1003"],
        ),
        (
            Response.emulate(read_data=b"ab"),
            Response.emulate(read_data=b"cde"),
            ["read_data recorded 6162, now 636465"],
        ),
        (
            Response.emulate(insn_data=b"\x90" * 16),
            Response.plain(),
            [
                "flags recorded vcpu_paused emulate set_emul_insn_data, now vcpu_paused",
                f"insn_data recorded {'90' * 16}, now nothing",
            ],
        ),
        (Response.plain().in_view(1), Response.plain().in_view(2), ["altp2m_idx recorded 1, now 2"]),
        (
            Response.fast_singlestep(1),
            Response.fast_singlestep(3),
            ["fast_singlestep.p2midx recorded 1, now 3"],
        ),
    ],
)
def test_differences_in_words(recorded: Response, now: Response, words: list[str]) -> None:
    event = decode(SLOT, V7)
    told = difference(encode(event, recorded), encode(event, now), V7)
    assert [line for line in (" ".join(one.split()) for one in told) if not line.startswith("regs.r1")][
        : len(words)
    ] == words


def test_a_difference_that_has_no_name() -> None:
    one = encode(decode(SLOT, V7), Response.plain())
    other = bytearray(one)
    other[-1] = 7
    assert difference(one, bytes(other), V7) == ["byte 0x18f                   recorded 0x00, now 0x07"]
