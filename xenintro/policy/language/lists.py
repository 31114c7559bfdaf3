"""``in`` and ``not in``: lists become sets of what is looked up in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.abi import MSRS
from xenintro.policy.language.scope import nearest
from xenintro.policy.language.sets import IntSet, parse_range
from xenintro.policy.language.tree import Constant, Items, Member, Node, Tagged
from xenintro.policy.language.words import called, field_of, is_msr, spelling

if TYPE_CHECKING:
    import ast

    from xenintro.policy.language.check import Checker
    from xenintro.policy.language.syntax import Span


def member(checker: Checker, node: ast.Compare, *, negated: bool) -> Node:
    """Whether a value is in a list.

    Raises:
        ExpressionError: it cannot be, or what is looked in is no list.
    """
    operand = checker.value(node.left)
    where = node.comparators[0]
    items = checker.value(where)
    span = checker.source.span(node)
    if items.kind == "names":
        if getattr(items, "name", "") == "flags":
            raise checker.error("a flag is a field", node, hint="write flags.vcpu_paused")
        if not (isinstance(operand, Constant) and isinstance(operand.value, str)):
            raise checker.error("a list of names has strings", node.left)
        return Tagged(span=span, kind="bool", word=operand.value, operand=items, negated=negated)
    if not isinstance(items, Items):
        hint = (
            f"write {checker.source.part(where)}.w" if getattr(items, "name", "").endswith("access") else ""
        )
        raise checker.error(f"{called(items)} is no list", where, hint=hint)
    if operand.kind not in ("int", "string"):
        raise checker.error(f"{called(operand)} is in no list", node.left)
    if isinstance(operand, Constant):
        raise checker.error("a constant in a list is always the same", node.left)
    values = int_set(checker, items, operand) if operand.kind == "int" else _strings(checker, items, operand)
    return Member(span=span, kind="bool", operand=operand, values=values, negated=negated)


def int_set(checker: Checker, items: Items, operand: Node | None) -> IntSet:
    """The numbers of a list that a number is looked up in; strings may be ranges, or names of MSRs."""
    if items.pages and operand is not None and operand.unit not in ("", "gfn"):
        assert items.span is not None
        raise checker.error(
            f"pages are compared with {'an address' if operand.unit == 'address' else operand.unit}",
            items.span,
            hint="an address >> 12 is a page of its space; gfn is a guest frame number",
        )
    names = MSRS if operand is not None and is_msr(operand) else {}
    ranges = []
    for number, value in enumerate(items.values):
        found = (value, value) if isinstance(value, int) else parse_range(value, names)
        if found is None:
            close = nearest(str(value), names)
            raise checker.error(
                f"{items.name + ': ' if items.name else ''}{value!r} is no number",
                _place(items, number),
                hint="" if close else 'ranges are written "0x1000-0x1fff"',
                nearest=close.upper() if close else None,
            )
        ranges.append(found)
    return IntSet.of(ranges)


def _strings(checker: Checker, items: Items, operand: Node) -> frozenset[str]:
    words = []
    for number, value in enumerate(items.values):
        place = _place(items, number)
        of = f"{items.name}: " if items.name else ""
        if items.pages or not isinstance(value, str):
            raise checker.error(f"{of}{value!r} is a number, and looked up is a string", place)
        read = field_of(operand)
        words.append(value if read is None else spelling(checker, value, read, place, of))
    return frozenset(words)


def _place(items: Items, number: int) -> Span:
    assert items.span is not None
    return items.spans[number] if items.spans else items.span
