"""From syntax to meaning: names are resolved, kinds of values compared, constants computed."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING

from xenintro.abi import MSRS
from xenintro.policy.language import functions
from xenintro.policy.language.arithmetic import arithmetic
from xenintro.policy.language.lists import member
from xenintro.policy.language.scope import SYMBOLS, Scope, nearest
from xenintro.policy.language.sets import parse_range
from xenintro.policy.language.syntax import Source, Span, name_of
from xenintro.policy.language.tree import Comparison, Constant, Items, Logic, Node, Not, Read, constant
from xenintro.policy.language.words import CALLED, called, is_msr, like, spelt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.errors import ExpressionError
    from xenintro.policy.language.scope import Named

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
_COMPARE: Mapping[str, Callable[..., bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


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
            raise self.error(f"{called(checked)} where a number is needed", node)
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
                return arithmetic(
                    self, "-" if isinstance(node.op, ast.USub) else "~", None, self.number(node.operand), node
                )
            case ast.BinOp():
                left, right = self.number(node.left), self.number(node.right)
                return arithmetic(self, _OPERATORS[type(node.op)], left, right, node)
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
            raise self.error(f"{name} is no field of {self.scope}", node, why=why)
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
        text = self.source.part(node)
        hint = f"write {text} != 0" if checked.kind == "int" and len(text) < 40 else ""
        return self.source.error(f"{called(checked)} where a condition is needed", node, hint=hint)

    def _comparison(self, node: ast.Compare) -> Node:
        nodes = (node.left, *node.comparators)
        if isinstance(node.ops[0], ast.In | ast.NotIn):
            if len(node.ops) > 1:
                raise self.error("in cannot be chained", node, hint="write and")
            return member(self, node, negated=isinstance(node.ops[0], ast.NotIn))
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
        left, right = like(left, right), like(right, left)
        for one, node in zip((left, right), nodes, strict=True):
            if one.kind == "set":
                raise self.error("a list cannot be compared", node, hint="write in")
            if one.kind == "names":
                raise self.error("a list of names cannot be compared", node, hint=f"write {_names_hint(one)}")
        if left.kind != right.kind:
            raise self._unlike(left, right, nodes[1])
        if left.kind != "int" and op not in ("==", "!="):
            raise self.error(f"{CALLED[left.kind]} is neither less nor more", nodes[1], hint="write == or !=")
        if left.kind == "string":
            left = spelt(self, left, right, nodes[0])
            right = spelt(self, right, left, nodes[1])
        return left, right

    def _unlike(self, left: Node, right: Node, node: ast.expr) -> ExpressionError:
        """What may have been meant by comparing a string with a number."""
        what = f"{called(left)} is compared with {called(right)}"
        read, other = (left, right) if isinstance(left, Read) else (right, left)
        hint = close = None
        if isinstance(read, Read) and read.kind == "string" and isinstance(other, Read):
            hint = f'write "{other.name.removeprefix("regs.")}" with quotes'
        if isinstance(other, Constant) and isinstance(other.value, str):
            if parse_range(other.value, {}):
                hint = "write the number without quotes"
            elif is_msr(read):
                close = nearest(other.value, (name.upper() for name in MSRS))
        return self.error(what, node, hint=hint, nearest=close)


def _names_hint(node: Node) -> str:
    name = node.name if isinstance(node, Read) else "names"
    return "flags.vcpu_paused" if name == "flags" else f'"..." in {name}'
