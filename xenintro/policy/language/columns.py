"""Chosen fields of answered requests as lines of text, one column each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenintro.fields import FIELDS
from xenintro.policy.language.check import Checker
from xenintro.policy.language.display import Value, is_wide, shown
from xenintro.policy.language.emit import Emitter
from xenintro.policy.language.scope import Scope
from xenintro.policy.language.syntax import Source, Span
from xenintro.policy.language.tree import Constant, Node, Read

if TYPE_CHECKING:
    from xenintro.answered import Answered

#: What would end a column or a line.
_SPACED = str.maketrans("\t\n\r", "   ")


class Columns:
    """Fields by their names in a filter, and ``ts``, ``seq`` and ``message``.

    Args:
        text: names with commas between them: ``ts,gfn,regs.rip``.

    Attributes:
        names: of the columns.

    Raises:
        ExpressionError: one that is no field, and where.
    """

    def __init__(self, text: str) -> None:
        scope = Scope(None, answered=True, names={})
        nodes: list[Node] = []
        self.names: tuple[str, ...] = tuple(word.strip() for word in text.split(","))
        self._wide: list[bool] = []
        at = 0
        for word, name in zip(text.split(","), self.names, strict=True):
            span = Span(at + len(word) - len(word.lstrip()), max(1, len(name)))
            at += len(word) + 1
            node = _field(name, Checker(Source(text), scope), span)
            nodes.append(node)
            self._wide.append(is_wide(node))
        self._values = Emitter(answered=True, state={}).values(nodes)
        self._output = {number: name for number, name in enumerate(self.names) if _is_output(name)}

    @property
    def header(self) -> str:
        """The line with the names."""
        return "\t".join(self.names)

    def row(self, answered: Answered, domain: Any, *, ts: str, seq: int) -> str:
        """The line of a request; ``-`` is what it does not have.

        Args:
            answered: the request.
            domain: a `xenintro.policy.language.expression.Domain`.
            ts: when it was taken.
            seq: its number.
        """
        values: list[Value] = list(self._values(answered, domain))
        for number, name in self._output.items():
            values[number] = ts if name == "ts" else seq if name == "seq" else _message(answered)
        return "\t".join(
            shown(value, wide=wide).translate(_SPACED) or "-"
            for value, wide in zip(values, self._wide, strict=True)
        )


def _field(name: str, checker: Checker, span: Span) -> Node:
    if _is_output(name):
        return Constant(span=span, kind="string", value="")
    read: Read | None = checker.read(name, span)
    if read is None:
        others = (word for word, field in FIELDS.items() if field.of == "output")
        raise checker.error(
            f"unknown field {name}" if name else "a field is missing",
            span,
            nearest=checker.scope.nearest(name, others),
        )
    return read


def _is_output(name: str) -> bool:
    return name in FIELDS and FIELDS[name].of == "output"


def _message(answered: Answered) -> str | None:
    return None if answered.rule is None else answered.rule.message(answered.event)
