"""A checked expression as Python source: nothing in it but what is written here, and its constants."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from xenintro.policy.language.readers import READABLE, cpl, flag_masks, registers
from xenintro.policy.language.sets import IntSet
from xenintro.policy.language.state import Last, Rate
from xenintro.policy.language.tree import (
    Arithmetic,
    Call,
    Comparison,
    Constant,
    Cpl,
    Has,
    Logic,
    Member,
    Node,
    Not,
    Previous,
    Read,
    Seen,
    Tagged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenintro.fields import Field
    from xenintro.policy.language.display import Value

#: So many ranges are compared one by one, more are searched.
_FEW = 3


def is_shown(node: Node) -> bool:
    """Whether people are told the value of a part: it is in the text and no constant, or a field."""
    return isinstance(node, Read) or (node.span is not None and not isinstance(node, Constant))


class Emitter:
    """Writes one function.

    Args:
        answered: its first argument is an answered request, not an event.
        state: what the nodes that remember things use, shared by all functions of an expression.
        trace: report the value of every part to ``note(number, value)``.

    Attributes:
        names: what the function's source refers to.
        noted: the parts by their number.
    """

    def __init__(self, *, answered: bool, state: dict[int, Last | Rate], trace: bool = False) -> None:
        self._answered = answered
        self._state = state
        self._trace = trace
        self._temporaries = 0
        self._before: list[str] = []
        self.names: dict[str, Any] = {"__builtins__": {}}
        self.noted: list[Node] = []

    def condition(self, node: Node) -> Callable[..., bool]:
        """A function of event (or answered request) and guest: whether a node holds."""
        code = self.code(node)
        return self._function(f"({code}) is True" if node.absent else code)

    def values(self, nodes: Sequence[Node]) -> Callable[..., tuple[Value, ...]]:
        """The same for the values of nodes."""
        return self._function(f"({''.join(f'{self.code(node)}, ' for node in nodes)})")

    def _function(self, result: str) -> Callable[..., Any]:
        subject = "answered" if self._answered else "event"
        lines = [
            f"def evaluate({subject}, guest):",
            *(["    event = answered.event"] if self._answered else []),
            *(f"    {line}" for line in self._before),
            f"    return {result}",
        ]
        exec(compile("\n".join(lines), "<expression>", "exec"), self.names)
        function: Callable[..., Any] = self.names["evaluate"]
        return function

    def code(self, node: Node) -> str:
        """Source that gives a node's value; None if that is absent."""
        code = self._code(node)
        if not self._trace or not is_shown(node):
            return code
        self.noted.append(node)
        return f"note({len(self.noted) - 1}, {code})"

    def _code(self, node: Node) -> str:
        match node:
            case Constant():
                return self._value(node.value)
            case Read():
                return self._read(node)
            case Previous():
                return self._previous(node)
            case Cpl():
                return f"{self._name(cpl())}[event.interface](event)"
            case Arithmetic():
                return self._arithmetic(node)
            case Comparison():
                return self._comparison(node)
            case Member():
                return self._member(node)
            case Tagged():
                listed = f"{self._value(node.word)} in ({self.code(node.operand)} or ())"
                return f"(not {listed})" if node.negated else f"({listed})"
            case Logic():
                return f"({f' {node.op} '.join(self.code(one) for one in node.operands)})"
            case Not():
                return f"(not {self.code(node.operand)})"
            case Has():
                return f"({self.code(node.operand)} is not None)"
            case Call():
                return self.code(node.meaning)
            case Seen():
                return self._seen(node)
        raise TypeError(node)

    def _value(self, value: int | str | bool) -> str:
        return self._name(value) if isinstance(value, str) else f"({value!r})" if value < 0 else repr(value)

    def _name(self, value: object) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def _temporary(self) -> str:
        self._temporaries += 1
        return f"t{self._temporaries}"

    def _read(self, node: Read) -> str:
        code = "None"
        for reasons, field in reversed(node.fields):
            one = self._field(field)
            if reasons is None:
                code = one
            elif len(reasons) == 1:
                code = f"({one} if event.reason == {self._name(next(iter(reasons)))} else {code})"
            else:
                code = f"({one} if event.reason in {self._name(reasons)} else {code})"
        return code

    def _field(self, field: Field) -> str:
        if field.of == "registers":
            return f"{self._name(registers(field.key))}[event.interface](event)"
        if (readable := READABLE.get((field.reason, field.key))) is not None:
            number, table = readable
            return f"{self._name(table)}[{number}]"
        if isinstance(field.bit, int):
            return f"((event.{field.key} & {field.bit}) != 0)"
        if field.bit == "vcpu_paused":  # bit 0 of every interface
            return "((event.flags & 1) != 0)"
        if field.bit:
            return f"((event.flags & {self._name(flag_masks(field.bit))}[event.interface]) != 0)"
        if field.name == "unknown.raw":
            return "event.raw.hex()"
        if field.key.startswith("rule."):
            return f"(None if answered.rule is None else answered.{field.key})"
        subject = {"guest": "guest", "answered": "answered"}.get(field.of, "event")
        return f"{subject}.{field.key}"

    def _previous(self, node: Previous) -> str:
        last = self._state.setdefault(id(node), Last())
        assert isinstance(last, Last)
        name = f"p{len(self._before)}"
        read = self._read(node.of)
        self._before.append(f"{name} = {self._name(last.exchange)}(event.vcpu_id, {read})")
        return name

    def _seen(self, node: Seen) -> str:
        rate = self._state.setdefault(id(node), Rate(node.count, node.window_ns))
        assert isinstance(rate, Rate)
        now = "answered.taken_ns" if self._answered else "guest.now_ns"
        if node.key is None:
            return f"{self._name(rate.hit)}({now})"
        return f"{self._name(rate.hit_by)}({now}, {self.code(node.key)})"

    def _arithmetic(self, node: Arithmetic) -> str:
        guards: list[str] = []
        left = "" if node.left is None else self._guarded(node.left, guards)
        if node.op in ("//", "%") and not isinstance(node.right, Constant):
            right = self._temporary()
            guards.append(f"not ({right} := {self.code(node.right)})")  # absent, or zero
        else:
            right = self._guarded(node.right, guards)
        code = f"({left} {node.op} {right})" if node.left is not None else f"({node.op}{right})"
        return f"(None if {' or '.join(guards)} else {code})" if guards else code

    def _guarded(self, node: Node, guards: list[str]) -> str:
        """Source of a value, once a guard has found it there."""
        code = self.code(node)
        if not node.absent:
            return code
        name = self._temporary()
        guards.append(f"({name} := {code}) is None")
        return name

    def _comparison(self, node: Comparison) -> str:
        operands, ops = node.operands, node.ops
        if ops == ("==",) and not (operands[0].absent and operands[1].absent):
            return f"({self.code(operands[0])} == {self.code(operands[1])})"  # None equals nothing
        parts: list[str] = []
        left, again = self._operand(operands[0], parts, twice=False)
        for number, op in enumerate(ops, 1):
            right, again = self._operand(operands[number], parts, twice=number < len(ops))
            parts.append(f"{left} {op} {right}")
            left = again
        return f"({' and '.join(parts)})"

    def _operand(self, node: Node, parts: list[str], *, twice: bool) -> tuple[str, str]:
        """Source of a value where it is used first, and again; ``parts`` ask before whether it is there."""
        code = self.code(node)
        if isinstance(node, Constant) or not (node.absent or twice):
            return code, code
        name = self._temporary()
        if node.absent:
            parts.append(f"({name} := {code}) is not None")
            return name, name
        return f"({name} := {code})", name

    def _member(self, node: Member) -> str:
        values, operand = node.values, node.operand
        code = self.code(operand)
        if not isinstance(values, IntSet) or values.singles:
            single = {first for first, _ in values.ranges} if isinstance(values, IntSet) else values
            where = self._name(frozenset(single))
            if not node.negated:
                return f"({code} in {where})"  # None is in no set
            if not operand.absent:
                return f"({code} not in {where})"
            name = self._temporary()
            return f"(({name} := {code}) is not None and {name} not in {where})"
        name = self._temporary()
        if len(values.ranges) <= _FEW:
            found = " or ".join(f"{first} <= {name} <= {last}" for first, last in values.ranges)
        else:
            found = f"{self._name(bisect_right)}({self._name(values.bounds())}, {name}) & 1 == 1"
        found = f"not ({found})" if node.negated else f"({found})"
        return f"(({name} := {code}) is not None and {found})"
