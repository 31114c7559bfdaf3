"""Random conditions without mistakes, and what each means: a second, slow implementation of the language."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from xenintro.abi import Access
from xenintro.events import Event

Meaning = Callable[[Event], Any]


class Part(NamedTuple):
    """A part of a condition, and its value for an event; None is absent."""

    text: str
    value: Meaning


NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 7, 8, 0x1F, 0x20, 0x1000, 0x1FFF, 0xC0000082, (1 << 63) + 1, (1 << 64) - 1]
)
SMALL = st.integers(0, 63)

_FIELDS = {
    "mem_access": ["gfn", "offset", "gla"],
    "write_ctrlreg": ["index", "new_value", "old_value"],
    "mov_to_msr": ["msr", "new_value", "old_value"],
    "software_breakpoint": ["gfn", "pending_dbg", "insn_length"],
    "cpuid": ["leaf", "subleaf", "insn_length"],
}
_REGISTERS = [
    "rip",
    "regs.cr3",
    "dr6",
    "cs_arbytes",
    "dr7",
    "msr_lstar",
    "regs.gdtr_base",
    "pc",
    "cs.ar",
    "ss.limit",
]
_COMMON = ["vcpu_id", "altp2m_idx"]
_FLAGS = ["vcpu_paused", "foreign", "deny", "alternate_p2m", "nested_p2m", "emulate"]

_INT = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}
_ORDER = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

REASONS = sorted(_FIELDS)


def _register(name: str) -> Meaning:
    name, _, part = name.removeprefix("regs.").partition(".")

    def value(event: Event) -> Any:
        if event.version != event.interface.version:
            return None
        found = event.registers.get(name)
        return getattr(found, part) if part and found is not None else found

    return value


def _lifted(function: Callable[..., Any], *parts: Part) -> Meaning:
    """A function that is absent where one of its arguments is."""

    def value(event: Event) -> Any:
        values = [part.value(event) for part in parts]
        return None if None in values else function(*values)

    return value


def _compared(function: Callable[..., bool], *parts: Part) -> Meaning:
    """A comparison: false where something is absent."""
    lifted = _lifted(function, *parts)
    return lambda event: lifted(event) or False


def fields(reason: str) -> st.SearchStrategy[Part]:
    """Numbers of an event."""
    payload = [
        Part(text, operator.attrgetter(name))
        for name in _FIELDS[reason]
        for text in (name, f"{reason}.{name}")
    ]
    common = [Part(name, operator.attrgetter(name)) for name in _COMMON]
    return st.sampled_from(payload + common + [Part(name, _register(name)) for name in _REGISTERS])


def _numbers(reason: str) -> st.SearchStrategy[Part]:
    leaves = fields(reason) | NUMBERS.map(lambda number: Part(f"{number:#x}", lambda event: number))
    return st.recursive(leaves, _arithmetic, max_leaves=4)


def _arithmetic(inner: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(sorted(_INT)), inner).map(
            lambda one: Part(f"({one[0].text} {one[1]} {one[2].text})", _lifted(_INT[one[1]], one[0], one[2]))
        ),
        st.tuples(inner, inner).map(
            lambda one: Part(f"({one[0].text} // {one[1].text})", _divided("//", *one))
        ),
        st.tuples(inner, inner).map(
            lambda one: Part(f"({one[0].text} % {one[1].text})", _divided("%", *one))
        ),
        inner.map(lambda one: Part(f"~{one.text}", _lifted(operator.invert, one))),
        inner.map(lambda one: Part(f"(-{one.text})", _lifted(operator.neg, one))),
        st.tuples(inner, SMALL).map(
            lambda one: Part(f"({one[0].text} << {one[1]})", _lifted(lambda n: n << one[1], one[0]))
        ),
        st.tuples(inner, SMALL).map(
            lambda one: Part(f"({one[0].text} >> {one[1]})", _lifted(lambda n: n >> one[1], one[0]))
        ),
    )


def _divided(op: str, left: Part, right: Part) -> Meaning:
    def divide(one: int, other: int) -> int | None:
        return None if other == 0 else one // other if op == "//" else one % other

    return _lifted(divide, left, right)


@st.composite
def _chains(draw: st.DrawFn, reason: str) -> Part:
    parts = draw(st.lists(_numbers(reason), min_size=2, max_size=4))
    ops = draw(st.lists(st.sampled_from(sorted(_ORDER)), min_size=len(parts) - 1, max_size=len(parts) - 1))
    text = parts[0].text + "".join(f" {op} {part.text}" for op, part in zip(ops, parts[1:], strict=True))
    pairs = [_compared(_ORDER[op], parts[n], parts[n + 1]) for n, op in enumerate(ops)]
    return Part(text, lambda event: all(pair(event) for pair in pairs))


@st.composite
def _memberships(draw: st.DrawFn, reason: str) -> Part:
    part = draw(fields(reason))
    ranges = draw(st.lists(st.tuples(NUMBERS, NUMBERS).map(sorted), max_size=6))
    singles = draw(st.lists(NUMBERS, max_size=3))
    negated = draw(st.booleans())
    items = [*(f'"{first:#x}-{last}"' for first, last in ranges), *map(str, singles)]
    text = f"{part.text} {'not ' if negated else ''}in [{', '.join(items)}]"

    def found(number: int) -> bool:
        there = number in singles or any(first <= number <= last for first, last in ranges)
        return there is not negated

    return Part(text, _compared(found, part))


def _conditions(reason: str) -> st.SearchStrategy[Part]:
    calls = [
        st.tuples(_numbers(reason), SMALL).map(
            lambda one: Part(
                f"bit({one[0].text}, {one[1]})", _compared(lambda n: n >> one[1] & 1 == 1, one[0])
            )
        ),
        st.tuples(_numbers(reason), NUMBERS).map(
            lambda one: Part(
                f"bits({one[0].text}, {one[1]:#x})", _compared(lambda n: n & one[1] == one[1], one[0])
            )
        ),
        fields(reason).map(lambda one: Part(f"has({one.text})", lambda event: one.value(event) is not None)),
        st.sampled_from(_FLAGS).map(
            lambda name: Part(f"flags.{name}", lambda event: name in event.flag_names)
        ),
        st.just(Part("True", lambda event: True)),
    ]
    if reason == "mem_access":
        calls += [
            st.sampled_from("rwx").map(lambda one: Part(f"access.{one}", lambda event: one in event.access)),
            st.sampled_from(["gla_valid", "fault_in_gpt"]).map(
                lambda name: Part(name, lambda event: bool(event.access_flags & Access[name.upper()]))
            ),
            st.sampled_from(["", "w", "rw"]).map(
                lambda word: Part(f"access == '{word}'", lambda event: event.access == word)
            ),
        ]
    if reason in ("write_ctrlreg", "mov_to_msr"):
        calls += [
            st.sampled_from(["cr3", "lstar"])
            .map(lambda word: Part(f"(register == '{word}')", lambda event: event.register == word))
            .filter(lambda part: ("cr3" in part.text) == (reason == "write_ctrlreg")),
            NUMBERS.map(
                lambda mask: Part(f"changed({mask})", _differing(lambda old, new: (old ^ new) & mask))
            ),
            NUMBERS.map(
                lambda mask: Part(f"turned_on({mask})", _differing(lambda old, new: new & ~old & mask))
            ),
            NUMBERS.map(
                lambda mask: Part(f"turned_off({mask})", _differing(lambda old, new: old & ~new & mask))
            ),
        ]
    return st.one_of(_chains(reason), _memberships(reason), *calls)


def _differing(function: Callable[[int, int], int]) -> Meaning:
    return lambda event: event.old_value is not None and function(event.old_value, event.new_value) != 0


def conditions(reason: str) -> st.SearchStrategy[Part]:
    """Conditions on events of a reason."""
    return st.recursive(_conditions(reason), _logic, max_leaves=5)


def _logic(inner: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
    return st.one_of(
        inner.map(lambda one: Part(f"(not {one.text})", lambda event: not one.value(event))),
        st.tuples(inner, inner).map(
            lambda one: Part(
                f"({one[0].text} and {one[1].text})",
                lambda event: bool(one[0].value(event) and one[1].value(event)),
            )
        ),
        st.tuples(inner, inner).map(
            lambda one: Part(
                f"({one[0].text} or {one[1].text})",
                lambda event: bool(one[0].value(event) or one[1].value(event)),
            )
        ),
    )
