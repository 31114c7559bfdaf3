"""Arithmetic of expressions: constants computed when they are read, and how large a number can get."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from xenintro.policy.language.tree import MAX_BITS, Arithmetic, Constant, Node, constant

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Mapping

    from xenintro.policy.language.check import Checker

_COMPUTE: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<<": operator.lshift,
    ">>": operator.rshift,
}


def arithmetic(
    checker: Checker, op: str, left: Node | None, right: Node, node: ast.expr, *, written: bool = True
) -> Node:
    """A number computed of one or two; now, if it can be. If it is not ``written``, the node stands for more.

    Raises:
        ExpressionError: it could be too large, or a shift or a division cannot be.
    """
    if op in ("<<", ">>") and not (isinstance(right, Constant) and 0 <= right.value < 64):  # type: ignore[operator]
        raise checker.error("a shift is by a constant from 0 to 63", node)
    divides = op in ("//", "%")
    if divides and isinstance(right, Constant) and right.value == 0:
        raise checker.error("division by zero", node)
    bits = _bits(op, left, right)
    if bits > MAX_BITS:
        raise checker.error("the number may become too large", node, why=f"{bits} bits, {MAX_BITS} at most")
    span = checker.source.span(node) if written else None
    if isinstance(right, Constant) and (left is None or isinstance(left, Constant)):
        return constant(_computed(op, left, right), span)
    absent = (
        right.absent or (left is not None and left.absent) or (divides and not isinstance(right, Constant))
    )
    return Arithmetic(span=span, kind="int", bits=bits, absent=absent, op=op, left=left, right=right)


def _bits(op: str, left: Node | None, right: Node) -> int:
    """How large a result can be; one more bit than needed does no harm."""
    one = 0 if left is None else left.bits
    match op:
        case "*":
            return one + right.bits
        case "<<":
            return one + (right.value if isinstance(right, Constant) and isinstance(right.value, int) else 0)
        case ">>":
            return one
        case _:
            return max(one, right.bits) + 1


def _computed(op: str, left: Node | None, right: Constant) -> int:
    assert isinstance(right.value, int)
    if left is None:
        return -right.value if op == "-" else ~right.value
    assert isinstance(left, Constant)
    assert isinstance(left.value, int)
    return _COMPUTE[op](left.value, right.value)
