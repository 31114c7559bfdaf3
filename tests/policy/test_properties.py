"""What holds for every condition and every event."""

from __future__ import annotations

import dis
import re
from collections import deque
from types import CodeType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.policy.events import GUEST, answered, make_event
from tests.policy.wellformed import NUMBERS, REASONS, Part, conditions
from tests.slots import slots
from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, Interface, interface
from xenintro.codec import decode
from xenintro.errors import ExpressionError
from xenintro.events import Event
from xenintro.fields import FIELDS
from xenintro.policy.language import state
from xenintro.policy.language.expression import Explanation, Expression, compile_expression, compile_filter
from xenintro.policy.language.state import Last, Rate
from xenintro.policy.language.template import compile_template
from xenintro.policy.language.tree import MAX_BITS

#: Made once: what decodes is made anew for each.
LAYOUTS = [interface(one, arch) for one in INTERFACE_IDS for arch in ARCHITECTURES]
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def events(draw: st.DrawFn, reason: str) -> Event:
    """Events of a reason on any interface that has them; numbers that conditions ask for, or any bytes."""
    having = [layout for layout in LAYOUTS if reason in layout.reasons.values()]
    layout = draw(st.sampled_from(having))
    code = next(number for number, name in layout.reasons.items() if name == reason)
    raw = bytearray(draw(st.binary(min_size=layout.slot_size, max_size=layout.slot_size)))
    if draw(st.booleans()):
        raw = bytearray(layout.slot_size)
    places = [*layout.payloads.get(reason, {}).values(), *layout.registers.values()]
    for field in draw(st.lists(st.sampled_from(places), max_size=6)) if places else []:
        value = draw(NUMBERS) & (1 << 8 * field.size) - 1
        raw[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    for name, value in (("reason", code), ("version", layout.version)):
        if name in layout.header and value is not None:
            field = layout.header[name]
            raw[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    return decode(bytes(raw), layout)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Part, list[Event]]:
    """A condition, and events that it may be asked about."""
    reason = draw(st.sampled_from(REASONS))
    return draw(conditions(reason)), draw(st.lists(events(reason), min_size=1, max_size=4))


def compiled(text: str, reason: str) -> Expression[Event]:
    try:
        return compile_expression(text, reason)
    except ExpressionError as error:
        if error.what in ("division by zero", "the number may become too large"):
            reject()
        raise AssertionError(f"{text}: {error.lines()}") from error


@SLOW
@given(questions())
def test_it_means_what_the_reference_says(question: tuple[Part, list[Event]]) -> None:
    part, asked = question
    one = compiled(part.text, asked[0].reason)
    filtering = compile_filter(part.text)
    for event in asked:
        wanted = part.value(event)
        assert one(event, GUEST) is wanted, part.text
        assert filtering(answered(event), GUEST) is wanted, part.text
        told = one.explain(event, GUEST)
        assert told.value is wanted
        check_numbers(told)


#: What the function of a condition may name: constants and helpers by number, and attributes of fields.
ATTRIBUTES = {
    *(part for field in FIELDS.values() for part in field.key.split(".")),
    *(
        "event",
        "interface",
        "taken_ns",
        "now_ns",
        "reason",
        "raw",
        "hex",
        "access_flags",
        "index",
        "descriptor",
    ),
}


@settings(SLOW, max_examples=20)
@given(questions())
def test_its_code_runs_straight_on_and_reaches_nothing_else(question: tuple[Part, list[Event]]) -> None:
    part, asked = question
    for one in (compiled(part.text, asked[0].reason), compile_filter(part.text)):
        code = one.matches.__code__  # type: ignore[attr-defined]
        names = {name for name in code.co_names if not re.fullmatch(r"k\d+", name)}
        assert names <= ATTRIBUTES
        assert not any(isinstance(constant, CodeType) for constant in code.co_consts)
        opcodes = {instruction.opname for instruction in dis.get_instructions(code)}
        assert not any("BACKWARD" in name or "ITER" in name or "IMPORT" in name for name in opcodes)
        assert one.matches.__globals__["__builtins__"] == {}  # type: ignore[attr-defined]


def check_numbers(told: Explanation) -> None:
    """No number is larger than what was promised."""
    if isinstance(told.value, int):
        assert told.value.bit_length() <= MAX_BITS
    for part in told.parts:
        check_numbers(part)


@settings(SLOW, max_examples=25)
@given(questions())
def test_a_text_shows_every_value(question: tuple[Part, list[Event]]) -> None:
    part, asked = question
    compiled(part.text, asked[0].reason)
    template = compile_template(f"<{{{part.text}}}>", asked[0].reason)
    for event in asked:
        assert template(event, GUEST) == f"<{str(part.value(event)).lower()}>"


WORDS = [
    *(
        "and",
        "or",
        "not",
        "in",
        "(",
        ")",
        ",",
        "[",
        "]",
        "==",
        "!=",
        "<",
        "<=",
        "&",
        "|",
        "^",
        "<<",
        ">>",
        "+",
        "-",
    ),
    *(
        "*",
        "//",
        "%",
        "~",
        "0",
        "1",
        "64",
        "0x1000",
        "True",
        "'w'",
        "'1s'",
        "'0x1-0x2'",
        "LSTAR",
        "hot",
        "limit",
    ),
    *(
        "bit(",
        "bits(",
        "changed(",
        "turned_on(",
        "cpl()",
        "has(",
        "prev(",
        "pages(",
        "seen(2, '1s')",
        "seen(",
    ),
    *(
        "gfn",
        "access",
        "access.w",
        "flags",
        "flags.deny",
        "rip",
        "cs.ar",
        "reason",
        "msr",
        "register",
        "new_value",
    ),
    *(
        "answer",
        "tags",
        "rule",
        "pause_ns",
        "late",
        "domid",
        "domain",
        "vcpu_id",
        ".",
        "unknown.raw",
        "if",
        "else",
    ),
]
NAMES = {"hot": [1, "0x10-0x20"], "limit": 7, "word": "w"}


@SLOW
@given(
    st.one_of(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), st.text(max_size=30)),
    st.lists(slots(), min_size=1, max_size=3),
)
def test_whatever_is_written_it_is_refused_or_never_raises(
    text: str, found: list[tuple[Interface, bytes]]
) -> None:
    asked = [decode(raw, layout) for layout, raw in found]
    for compile_one in (compile_filter, lambda text, names: compile_expression(text, None, names=names)):
        try:
            one: Expression[Any] = compile_one(text, names=NAMES)
        except ExpressionError as error:
            assert 0 <= error.offset <= len(text)
            assert all(isinstance(line, str) for line in error.lines())
            continue
        for event in asked:
            subject = answered(event) if compile_one is compile_filter else event
            assert one(subject, GUEST) in (True, False)
            assert one.explain(subject, GUEST).value in (True, False)


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.of != "output"])
def test_every_field_can_be_asked_of_every_event(name: str) -> None:
    text = f"'x' in {name}" if FIELDS[name].kind == "names" and name != "flags" else f"has({name})"
    one = compile_filter(text)
    for reason in ("mem_access", "cpuid", "interrupt", "unknown", "vmexit"):
        assert one(answered(make_event(reason)), GUEST) in (True, False)


class Remembering(RuleBasedStateMachine):
    """``seen`` and ``prev`` against lists of everything that happened."""

    @initialize(count=st.integers(1, 4), window=st.integers(1, 20))
    def begin(self, count: int, window: int) -> None:
        self.count, self.window_ns = count, window
        self.rate, self.keyed, self.last = Rate(count, window), Rate(count, window), Last()
        self.times: list[tuple[int, int]] = []
        self.values: dict[int, int] = {}
        self.now = 0

    def often(self, times: list[int]) -> bool:
        recent = times[-self.count :]
        return len(recent) == self.count and recent[-1] - recent[0] <= self.window_ns

    @rule(after=st.integers(0, 10), key=st.integers(0, 3))
    def hit(self, after: int, key: int) -> None:
        self.now += after
        self.times.append((self.now, key))
        assert self.rate.hit(self.now) is self.often([time for time, _ in self.times])
        of_key = [time for time, other in self.times if other == key]
        assert self.keyed.hit_by(self.now, key) is self.often(of_key)

    @rule()
    def absent(self) -> None:
        assert not self.keyed.hit_by(self.now, None)

    @rule(vcpu=st.integers(0, 2), value=st.none() | st.integers(0, 5))
    def exchange(self, vcpu: int, value: int | None) -> None:
        assert self.last.exchange(vcpu, value) == self.values.get(vcpu)
        if value is not None:
            self.values[vcpu] = value

    @rule()
    def forget(self) -> None:
        self.rate.clear()
        self.keyed.clear()
        self.last.clear()
        self.times, self.values = [], {}

    @invariant()
    def counted(self) -> None:
        if hasattr(self, "keyed"):
            assert self.keyed._kept == sum(map(len, self.keyed._by_key.values()))


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_TIMES", 100)
    monkeypatch.setattr(state, "MAX_VCPUS", 10)
    rate, last = Rate(7, 10**9), Last()
    for number in range(1000):
        rate.hit_by(number, number % 333)
        assert sum(map(len, rate._by_key.values())) <= 100
        last.exchange(number, number)
        assert len(last._values) <= 10
    assert last.exchange(999, 1) == 999
    assert isinstance(rate._times, deque)


def test_a_clock_that_goes_back_is_no_rate() -> None:
    one = compile_expression('seen(2, "1s")', None)
    event = make_event("cpuid")
    times = [5, 3, 4, 10**10, 1]
    assert [one(event, SimpleNamespace(domid=1, name=None, now_ns=now)) for now in times] == [
        *(False, False, True, False, False)
    ]
