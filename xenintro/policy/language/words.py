"""Strings in expressions: what a field can be, how it spells that, and names that stand for numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xenintro.abi import MSR_NAMES, MSRS
from xenintro.policy.language.scope import nearest
from xenintro.policy.language.tree import Constant, Node, Previous, Read, constant

if TYPE_CHECKING:
    import ast

    from xenintro.policy.language.check import Checker
    from xenintro.policy.language.syntax import Span

#: Kinds of values in an error's words.
CALLED = {"int": "a number", "bool": "a truth value", "string": "a string", "names": "a list of names"}
_MSR_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+")


def field_of(node: Node) -> Read | None:
    """The field that a part is, or was."""
    if isinstance(node, Previous):
        return node.of
    return node if isinstance(node, Read) else None


def is_msr(node: Node) -> bool:
    """Whether it is the number of an MSR, which may be written by name."""
    read = field_of(node)
    return read is not None and all(field.key == "msr" for _, field in read.fields)


def like(node: Node, other: Node) -> Node:
    """A constant as what it is compared with: "LSTAR" is the MSR's number, LSTAR the register's name."""
    if not isinstance(node, Constant) or field_of(other) is None:
        return node
    if isinstance(node.value, str) and is_msr(other) and node.value.lower() in MSRS:
        return constant(MSRS[node.value.lower()], node.span)
    if node.symbol in MSRS and other.kind == "string":
        return constant(node.symbol, node.span)
    return node


def called(node: Node) -> str:
    """A part in an error's words."""
    if isinstance(node, Constant):
        return f"the string {node.value!r}" if node.kind == "string" else CALLED[node.kind]
    if isinstance(node, Read):
        return f"{node.name} ({CALLED[node.kind]})"
    return CALLED.get(node.kind, "a list")


def spelt(checker: Checker, word: Node, other: Node, node: ast.expr) -> Node:
    """A string that can be what it is compared with, in its spelling."""
    read = field_of(other)
    if not isinstance(word, Constant) or read is None:
        return word
    assert isinstance(word.value, str)
    spelled = spelling(checker, word.value, read, checker.source.span(node))
    return constant(spelled, word.span)


def spelling(checker: Checker, word: str, read: Read, span: Span, of: str = "") -> str:
    """A string as the field spells it.

    Raises:
        ExpressionError: the field is never this.
    """
    values = {value for _, field in read.fields for value in field.values}
    open_ended = any(not field.values for _, field in read.fields)
    if open_ended or word in values:
        return word
    if any(field.key == "register" for _, field in read.fields) and word.lower() in values:
        return word.lower()
    if any(field.reason == "mov_to_msr" for _, field in read.fields) and _MSR_NUMBER.fullmatch(word):
        number = int(word, 16)
        return MSR_NAMES.get(number, f"{number:#x}")
    close = nearest(word, values)
    raise checker.error(
        f"{of}{read.name} is never {word!r}",
        span,
        why=f"it is one of {', '.join(sorted(values))}" if len(values) < 12 else "",
        nearest=f'"{close}"' if close is not None else None,
    )
