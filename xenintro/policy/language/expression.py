"""Conditions on events: checked when they are read, compiled once, never wrong about a type afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from xenintro.policy.language.check import Checker
from xenintro.policy.language.display import Value, is_wide, shown
from xenintro.policy.language.emit import Emitter, is_shown
from xenintro.policy.language.scope import Scope
from xenintro.policy.language.syntax import Source
from xenintro.policy.language.tree import Constant, Node, Previous, Read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xenintro.answered import Answered
    from xenintro.events import Event
    from xenintro.policy.language.scope import Named
    from xenintro.policy.language.state import Last, Rate

Subject = TypeVar("Subject")


class Domain(Protocol):
    """Where an event comes from."""

    @property
    def domid(self) -> int | None: ...  # noqa: D102
    @property
    def name(self) -> str | None: ...  # noqa: D102


class Guest(Domain, Protocol):
    """Where an event comes from, and when: `xenintro.guest.Guest` is one."""

    @property
    def now_ns(self) -> int: ...  # noqa: D102


class Explanation(msgspec.Struct, frozen=True):
    """What a part of an expression was for one event.

    Attributes:
        text: the part, as it was written; the name of a field that a helper reads.
        value: what it gave; None if that was absent, or nobody asked.
        asked: False if another part had decided already.
        shown: the value as people read it.
        parts: what it is made of, constants aside.
    """

    text: str
    value: Value
    asked: bool
    shown: str
    parts: tuple[Explanation, ...]


class Expression(Generic[Subject]):
    """A condition.

    It remembers what ``prev`` and ``seen`` need from one call to the next.

    Attributes:
        text: as it was written.
        reason: of the events it may be asked about; None for all.
        fields: names of the fields that it reads.
        constant: what it always is; None if that depends.
        matches: the same as calling it, without the cost of a method.
    """

    def __init__(self, source: Source, tree: Node, reason: str | None, *, answered: bool) -> None:
        self.text = source.text
        self.reason = reason
        self.fields = tuple(dict.fromkeys(read.name for read in _reads(tree)))
        self.constant = bool(tree.value) if isinstance(tree, Constant) else None
        self._tree = tree
        self._answered = answered
        self._state: dict[int, Last | Rate] = {}
        self.matches = Emitter(answered=answered, state=self._state).condition(tree)

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, {self.reason!r})"

    def __call__(self, subject: Subject, guest: Any) -> bool:
        """Whether it holds. Never raises.

        Args:
            subject: an event of its reason; for a filter, an answered request.
            guest: a `Guest`; for a filter, a `Domain`.
        """
        return self.matches(subject, guest)

    def explain(self, subject: Subject, guest: Any) -> Explanation:
        """What each part of it is for an event. It counts as a call: ``prev`` and ``seen`` remember it."""
        emitter = Emitter(answered=self._answered, state=self._state, trace=True)
        values: dict[int, Value] = {}

        def note(number: int, value: Value) -> Value:
            values[number] = value
            return value

        emitter.names["note"] = note
        result = emitter.condition(self._tree)(subject, guest)
        numbers = {id(node): number for number, node in enumerate(emitter.noted)}
        return self._explained(self._tree, values, numbers, result)

    def reset(self) -> None:
        """Forget what was seen: the next event is of another guest."""
        for state in self._state.values():
            state.clear()

    def _explained(
        self, node: Node, values: Mapping[int, Value], numbers: Mapping[int, int], result: Value = None
    ) -> Explanation:
        number = numbers.get(id(node), -1)
        value = node.value if isinstance(node, Constant) else values.get(number)
        if node is self._tree:
            value = result
        parts = tuple(self._explained(part, values, numbers) for part in _parts(node))
        asked = number in values or isinstance(node, Constant)
        text = shown(value, wide=is_wide(node)) if asked else "not asked"
        return Explanation(self._text(node), value, asked, text, parts)

    def _text(self, node: Node) -> str:
        if node.span is None:
            return node.name if isinstance(node, Read) else ""
        return self.text[node.span.offset : node.span.offset + node.span.length]


def compile_expression(
    text: str, reason: str | None, *, names: Mapping[str, Named] | None = None
) -> Expression[Event]:
    """A condition of a rule.

    Args:
        text: the condition.
        reason: of the events that it will be asked about; None for any.
        names: constants and lists that it may use. In lists, strings may be ranges: ``"0x1000-0x1fff"``.

    Raises:
        ExpressionError: a mistake, and where.
    """
    return _compiled(text, Scope(reason, answered=False, names={} if names is None else names))


def compile_filter(text: str, *, names: Mapping[str, Named] | None = None) -> Expression[Answered]:
    """A condition on answered requests of any reason: `compile_expression`, and what became of them.

    Raises:
        ExpressionError: a mistake, and where.
    """
    return _compiled(text, Scope(None, answered=True, names={} if names is None else names))


def _compiled(text: str, scope: Scope) -> Expression[Any]:
    source = Source(text)
    tree = Checker(source, scope).condition(source.parse())
    return Expression(source, tree, scope.reason, answered=scope.answered)


def _reads(node: Node) -> Iterator[Read]:
    if isinstance(node, Read):
        yield node
    for child in node.children():
        yield from _reads(child)


def _parts(node: Node) -> Iterator[Node]:
    """The parts that people are told of; what a helper is written with is none."""
    if isinstance(node, Previous):
        return
    for child in node.children():
        if is_shown(child):
            yield child
        elif not isinstance(child, Constant):
            yield from _parts(child)
