"""A checked expression: every node knows what kind of value it gives, and how large a number can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from xenintro.fields import Field
from xenintro.policy.language.sets import IntSet
from xenintro.policy.language.syntax import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Numbers in an expression never have more bits.
MAX_BITS = 256


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """Part of an expression.

    Attributes:
        span: where it is written; None for what a call stands for.
        kind: ``int``, ``bool``, ``string``, ``names`` or ``set``.
        bits: an int is less than 2 to this power, and more than its negative.
        absent: it may have no value.
        unit: of an int that is a field.
    """

    span: Span | None
    kind: str
    bits: int = 0
    absent: bool = False
    unit: str = ""

    def children(self) -> Iterator[Node]:
        """What it is made of, in the order of the text."""
        for value in msgspec.structs.astuple(self):
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, Node):
                    yield one


class Constant(Node, frozen=True, kw_only=True):
    """A number, string or truth value; ``symbol`` is the name it was written by."""

    value: int | str | bool
    symbol: str = ""


class Items(Node, frozen=True, kw_only=True):
    """Something to look in: what was written, not yet compared with anything.

    ``pages`` says that they are gfns; ``spans`` has the places of the values if they are in the expression.
    """

    values: tuple[int | str, ...]
    name: str = ""
    pages: bool = False
    spans: tuple[Span, ...] = ()


class Read(Node, frozen=True, kw_only=True):
    """A field: for all events, or one for each reason (then the others have none)."""

    name: str
    fields: tuple[tuple[frozenset[str] | None, Field], ...]


class Previous(Node, frozen=True, kw_only=True):
    """What a field had the last time on this vCPU."""

    of: Read


class Cpl(Node, frozen=True, kw_only=True):
    """The privilege level of the vCPU."""


class Arithmetic(Node, frozen=True, kw_only=True):
    """Two numbers and what Python calls the operator; ``-`` and ``~`` have only the right one."""

    op: str
    left: Node | None
    right: Node


class Comparison(Node, frozen=True, kw_only=True):
    """Values, and one operator fewer: a chain."""

    operands: tuple[Node, ...]
    ops: tuple[str, ...]


class Member(Node, frozen=True, kw_only=True):
    """Whether a value is in (or not in) a set."""

    operand: Node
    values: IntSet | frozenset[str]
    negated: bool = False


class Tagged(Node, frozen=True, kw_only=True):
    """Whether a string is in a list of names."""

    word: str
    operand: Node
    negated: bool = False


class Logic(Node, frozen=True, kw_only=True):
    """``and``, ``or``."""

    op: str
    operands: tuple[Node, ...]


class Not(Node, frozen=True, kw_only=True):
    """``not``."""

    operand: Node


class Has(Node, frozen=True, kw_only=True):
    """Whether a field has a value."""

    operand: Node


class Call(Node, frozen=True, kw_only=True):
    """A helper that is written with other nodes."""

    meaning: Node


class Seen(Node, frozen=True, kw_only=True):
    """Whether this place was reached ``count`` times within a time, each ``key`` apart."""

    count: int
    window_ns: int
    key: Node | None


def constant(value: int | str | bool, span: Span | None, symbol: str = "") -> Constant:
    """A constant of the kind that its value has."""
    kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "string"
    bits = value.bit_length() if isinstance(value, int) else 0
    return Constant(span=span, kind=kind, bits=bits, value=value, symbol=symbol)
