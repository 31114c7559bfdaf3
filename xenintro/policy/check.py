"""From syntax to meaning: names are resolved, kinds of values compared, constants computed."""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING

from xenintro.abi import MSR_NAMES, MSRS
from xenintro.policy import functions
from xenintro.policy.scope import SYMBOLS, Scope, nearest
from xenintro.policy.sets import IntSet, parse_range
from xenintro.policy.syntax import Source, Span, name_of
from xenintro.policy.tree import (
    MAX_BITS,
    Arithmetic,
    Comparison,
    Constant,
    Items,
    Logic,
    Member,
    Node,
    Not,
    Previous,
    Read,
    Tagged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.errors import ExpressionError
    from xenintro.policy.scope import Named

_OPERATORS: Mapping[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
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
_COMPARE: Mapping[str, Callable[..., bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CALLED = {"int": "a number", "bool": "a truth value", "string": "a string", "names": "a list of names"}
_MSR_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+")


class Checker:
    """Checks one expression.

    Args:
        source: its text.
        scope: what its names mean.
    """

    def __init__(self, source: Source, scope: Scope) -> None:
        self.source = source
        self.scope = scope

    def condition(self, node: ast.expr) -> Node:
        """A part that must be true or false."""
        checked = self.value(node)
        if checked.kind != "bool":
            raise self._no_condition(node, checked)
        return checked

    def number(self, node: ast.expr) -> Node:
        """A part that must be a number."""
        checked = self.value(node)
        if checked.kind != "int":
            raise self.error(f"{_called(checked)} where a number is needed", node)
        return checked

    def value(self, node: ast.expr) -> Node:
        """Any part.

        Raises:
            ExpressionError: a name that does not exist, kinds of values that do not fit.
        """
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name() | ast.Attribute():
                return self._name(node)
            case ast.BoolOp():
                operands = tuple(self.condition(one) for one in node.values)
                return self._logic("and" if isinstance(node.op, ast.And) else "or", operands, node)
            case ast.UnaryOp(op=ast.Not()):
                return self._not(node)
            case ast.UnaryOp():
                return self.arithmetic(
                    "-" if isinstance(node.op, ast.USub) else "~", None, self.number(node.operand), node
                )
            case ast.BinOp():
                left, right = self.number(node.left), self.number(node.right)
                return self.arithmetic(_OPERATORS[type(node.op)], left, right, node)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return functions.call(self, node)
            case ast.Tuple() | ast.List() | ast.Set():
                return self._items(node)
        raise self.error("the language has no such thing", node)

    def error(self, what: str, at: ast.expr | Span, **more: str | None) -> ExpressionError:
        """A mistake."""
        return self.source.error(what, at, **{key: text for key, text in more.items() if text})

    def _constant(self, node: ast.Constant) -> Constant:
        assert isinstance(node.value, int | str)
        return constant(node.value, self.source.span(node))

    def _name(self, node: ast.Name | ast.Attribute) -> Node:
        name = self._dotted(node)
        span = self.source.span(node)
        if (read := self.read(name, span)) is not None:
            return read
        if name in self.scope.names:
            return self._given(name, self.scope.names[name], node)
        if name in SYMBOLS:
            return constant(SYMBOLS[name], span, symbol=name.lower())
        if name in functions.FUNCTIONS:
            raise self.error(f"{name} is a function", node, hint=f"write {functions.FUNCTIONS[name].usage}")
        if why := self.scope.why_not(name):
            of = "a filter" if self.scope.reason is None else self.scope.reason
            of = "a rule" if "rules have answered" in why else of
            raise self.error(f"{name} is no field of {of}", node, why=why)
        raise self.error(
            f"unknown name {name}",
            node,
            nearest=self.scope.nearest(name, (*functions.FUNCTIONS, "True", "False")),
        )

    def read(self, name: str, span: Span | None) -> Read | None:
        """The field of a name, None if there is none."""
        meaning = self.scope.field(name)
        if meaning is None:
            return None
        first = meaning.fields[0][1]
        units = {field.unit for _, field in meaning.fields}
        return Read(
            span=span,
            kind=first.kind,
            bits=64 if first.kind == "int" else 0,
            absent=meaning.absent,
            unit=first.unit if len(units) == 1 else "",
            name=meaning.name,
            fields=meaning.fields,
        )

    def _dotted(self, node: ast.expr) -> str:
        words: list[str] = []
        at = node
        while isinstance(at, ast.Attribute):
            words.append(name_of(at))
            at = at.value
        if not isinstance(at, ast.Name):
            raise self.error("only fields have fields", node)
        return ".".join((name_of(at), *reversed(words)))

    def _given(self, name: str, value: Named, node: ast.expr) -> Node:
        span = self.source.span(node)
        if isinstance(value, int | str):
            return constant(value, span)
        return Items(span=span, kind="set", values=tuple(value), name=name)

    def _items(self, node: ast.Tuple | ast.List | ast.Set) -> Items:
        values: list[int | str] = []
        for one in node.elts:
            item = self.value(one)
            if not isinstance(item, Constant) or isinstance(item.value, bool):
                raise self.error("a list has numbers and strings", one, hint="compare with == and or")
            values.append(item.value)
        spans = tuple(self.source.span(one) for one in node.elts)
        return Items(span=self.source.span(node), kind="set", values=tuple(values), spans=spans)

    def _logic(self, op: str, operands: tuple[Node, ...], node: ast.expr) -> Node:
        span = self.source.span(node)
        if all(isinstance(one, Constant) for one in operands):
            values = [bool(one.value) for one in operands if isinstance(one, Constant)]
            return constant(all(values) if op == "and" else any(values), span)
        return Logic(
            span=span, kind="bool", absent=any(one.absent for one in operands), op=op, operands=operands
        )

    def _not(self, node: ast.UnaryOp) -> Node:
        operand = self.condition(node.operand)
        if isinstance(operand, Constant):
            return constant(not operand.value, self.source.span(node))
        return Not(span=self.source.span(node), kind="bool", operand=operand)

    def _no_condition(self, node: ast.expr, checked: Node) -> ExpressionError:
        text = _part(self.source, node)
        hint = f"write {text} != 0" if checked.kind == "int" and len(text) < 40 else ""
        return self.source.error(f"{_called(checked)} where a condition is needed", node, hint=hint)

    def arithmetic(self, op: str, left: Node | None, right: Node, node: ast.expr | None) -> Node:
        """A number computed of one or two; computed now where it can be."""
        at = node or ast.Constant(0)
        if op in ("<<", ">>") and not (isinstance(right, Constant) and 0 <= right.value < 64):  # type: ignore[operator]
            raise self.error("a shift is by a constant from 0 to 63", at)
        divides = op in ("//", "%")
        if divides and isinstance(right, Constant) and right.value == 0:
            raise self.error("division by zero", at)
        bits = _bits(op, left, right)
        if bits > MAX_BITS:
            raise self.error("the number may become too large", at, why=f"{bits} bits, {MAX_BITS} at most")
        span = None if node is None else self.source.span(node)
        if isinstance(right, Constant) and (left is None or isinstance(left, Constant)):
            return constant(_computed(op, left, right), span)
        absent = (
            right.absent
            or (left is not None and left.absent)
            or (divides and not isinstance(right, Constant))
        )
        return Arithmetic(span=span, kind="int", bits=bits, absent=absent, op=op, left=left, right=right)

    def _comparison(self, node: ast.Compare) -> Node:
        nodes = (node.left, *node.comparators)
        if isinstance(node.ops[0], ast.In | ast.NotIn):
            if len(node.ops) > 1:
                raise self.error("in cannot be chained", node, hint="write and")
            return self._member(node, negated=isinstance(node.ops[0], ast.NotIn))
        operands = [self.value(one) for one in nodes]
        ops = tuple(_OPERATORS.get(type(op), "in") for op in node.ops)
        if "in" in ops:
            raise self.error("in cannot be chained", node, hint="write and")
        for number, op in enumerate(ops):
            operands[number : number + 2] = self._pair(
                op, operands[number], operands[number + 1], nodes[number : number + 2]
            )
        span = self.source.span(node)
        if all(isinstance(one, Constant) for one in operands):
            values = [one.value for one in operands if isinstance(one, Constant)]
            pairs = zip(values, ops, values[1:], strict=False)
            return constant(all(_COMPARE[op](left, right) for left, op, right in pairs), span)
        return Comparison(span=span, kind="bool", operands=tuple(operands), ops=ops)

    def _pair(self, op: str, left: Node, right: Node, nodes: tuple[ast.expr, ...]) -> tuple[Node, Node]:
        """Two operands of a comparison, names of MSRs turned into numbers or back."""
        left, right = _like(left, right), _like(right, left)
        for one, node in zip((left, right), nodes, strict=True):
            if one.kind == "set":
                raise self.error("a list cannot be compared", node, hint="write in")
            if one.kind == "names":
                raise self.error("a list of names cannot be compared", node, hint=f"write {_names_hint(one)}")
        if left.kind != right.kind:
            raise self._unlike(left, right, nodes[1])
        if left.kind != "int" and op not in ("==", "!="):
            raise self.error(
                f"{_CALLED[left.kind]} is neither less nor more", nodes[1], hint="write == or !="
            )
        if left.kind == "string":
            left = self._spelt(left, right, nodes[0])
            right = self._spelt(right, left, nodes[1])
        return left, right

    def _unlike(self, left: Node, right: Node, node: ast.expr) -> ExpressionError:
        """What may have been meant by comparing a string with a number."""
        what = f"{_called(left)} is compared with {_called(right)}"
        read, other = (left, right) if isinstance(left, Read) else (right, left)
        hint = close = None
        if isinstance(read, Read) and read.kind == "string" and isinstance(other, Read):
            hint = f'write "{other.name.removeprefix("regs.")}" with quotes'
        if isinstance(other, Constant) and isinstance(other.value, str):
            if parse_range(other.value, {}):
                hint = "write the number without quotes"
            elif _is_msr(read):
                close = nearest(other.value, (name.upper() for name in MSRS))
        return self.error(what, node, hint=hint, nearest=close)

    def _spelt(self, word: Node, other: Node, node: ast.expr) -> Node:
        """A string that can be what it is compared with, in its spelling."""
        read = _field_of(other)
        if not isinstance(word, Constant) or read is None:
            return word
        assert isinstance(word.value, str)
        spelt = self._spelling(word.value, read, self.source.span(node))
        return constant(spelt, word.span)

    def _spelling(self, word: str, read: Read, span: Span, of: str = "") -> str:
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
        raise self.error(
            f"{of}{read.name} is never {word!r}",
            span,
            why=f"it is one of {', '.join(sorted(values))}" if len(values) < 12 else "",
            nearest=f'"{close}"' if close is not None else None,
        )

    def _member(self, node: ast.Compare, *, negated: bool) -> Node:
        operand = self.value(node.left)
        where = node.comparators[0]
        items = self.value(where)
        span = self.source.span(node)
        if items.kind == "names":
            if getattr(items, "name", "") == "flags":
                raise self.error("a flag is a field", node, hint="write flags.vcpu_paused")
            if not (isinstance(operand, Constant) and isinstance(operand.value, str)):
                raise self.error("a list of names has strings", node.left)
            return Tagged(span=span, kind="bool", word=operand.value, operand=items, negated=negated)
        if not isinstance(items, Items):
            hint = (
                f"write {_part(self.source, where)}.w"
                if getattr(items, "name", "").endswith("access")
                else ""
            )
            raise self.error(f"{_called(items)} is no list", where, hint=hint)
        if operand.kind not in ("int", "string"):
            raise self.error(f"{_called(operand)} is in no list", node.left)
        if isinstance(operand, Constant):
            raise self.error("a constant in a list is always the same", node.left)
        values = self.int_set(items, operand) if operand.kind == "int" else self._strings(items, operand)
        return Member(span=span, kind="bool", operand=operand, values=values, negated=negated)

    def int_set(self, items: Items, operand: Node | None) -> IntSet:
        """The numbers of a list that a number is looked up in; strings may be ranges, or names of MSRs."""
        if items.pages and operand is not None and operand.unit not in ("", "gfn"):
            assert items.span is not None
            raise self.error(
                f"pages are compared with {'an address' if operand.unit == 'address' else operand.unit}",
                items.span,
                hint="an address >> 12 is a page of its space; gfn is a guest frame number",
            )
        names = MSRS if operand is not None and _is_msr(operand) else {}
        ranges = []
        for number, value in enumerate(items.values):
            found = (value, value) if isinstance(value, int) else parse_range(value, names)
            if found is None:
                close = nearest(str(value), names)
                raise self.error(
                    f"{items.name + ': ' if items.name else ''}{value!r} is no number",
                    self._place(items, number),
                    hint="" if close else 'ranges are written "0x1000-0x1fff"',
                    nearest=close.upper() if close else None,
                )
            ranges.append(found)
        return IntSet.of(ranges)

    def _strings(self, items: Items, operand: Node) -> frozenset[str]:
        words = []
        for number, value in enumerate(items.values):
            place = self._place(items, number)
            of = f"{items.name}: " if items.name else ""
            if items.pages or not isinstance(value, str):
                raise self.error(f"{of}{value!r} is a number, and looked up is a string", place)
            read = _field_of(operand)
            words.append(value if read is None else self._spelling(value, read, place, of))
        return frozenset(words)

    def _place(self, items: Items, number: int) -> Span:
        assert items.span is not None
        return items.spans[number] if items.spans else items.span


def constant(value: int | str | bool, span: Span | None, symbol: str = "") -> Constant:
    """A constant of the kind that its value has."""
    kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "string"
    bits = value.bit_length() if isinstance(value, int) else 0
    return Constant(span=span, kind=kind, bits=bits, value=value, symbol=symbol)


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


def _field_of(node: Node) -> Read | None:
    """The field that a part is, or was."""
    if isinstance(node, Previous):
        return node.of
    return node if isinstance(node, Read) else None


def _is_msr(node: Node) -> bool:
    read = _field_of(node)
    return read is not None and all(field.key == "msr" for _, field in read.fields)


def _like(node: Node, other: Node) -> Node:
    """A constant as what it is compared with: "LSTAR" is the MSR's number, LSTAR the register's name."""
    if not isinstance(node, Constant) or _field_of(other) is None:
        return node
    if isinstance(node.value, str) and _is_msr(other) and node.value.lower() in MSRS:
        return constant(MSRS[node.value.lower()], node.span)
    if node.symbol in MSRS and other.kind == "string":
        return constant(node.symbol, node.span)
    return node


def _called(node: Node) -> str:
    if isinstance(node, Constant):
        return f"the string {node.value!r}" if node.kind == "string" else _CALLED[node.kind]
    if isinstance(node, Read):
        return f"{node.name} ({_CALLED[node.kind]})"
    return _CALLED.get(node.kind, "a list")


def _names_hint(node: Node) -> str:
    name = node.name if isinstance(node, Read) else "names"
    return "flags.vcpu_paused" if name == "flags" else f'"..." in {name}'


def _part(source: Source, node: ast.expr) -> str:
    span = source.span(node)
    return source.text[span.offset : span.offset + span.length]
