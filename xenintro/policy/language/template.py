"""Texts with values of an event in braces: what a rule says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xenintro.errors import ExpressionError
from xenintro.policy.language.check import Checker
from xenintro.policy.language.display import Value, is_wide, shown
from xenintro.policy.language.emit import Emitter
from xenintro.policy.language.scope import Scope
from xenintro.policy.language.syntax import MAX_LENGTH, Source, Span
from xenintro.policy.language.tree import Node, Previous, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xenintro.events import Event
    from xenintro.policy.language.scope import Named

_PIECE = re.compile(r"(\{\{|\}\})|\{([^{}:]*)(?::([^{}]*))?\}|([{}])")

#: What Python may be asked for, by kind of value: no width makes a text long.
_FORMATS = {
    "int": re.compile(r"[<>^]?[+ ]?#?0?\d{0,2}[,_]?[bdoxX]?"),
    "string": re.compile(r"[<>^]?\d{0,2}(\.\d{1,2})?"),
}
_LIKE = {"int": "{gfn:#x} or {gfn:10}", "string": "{register:>8}"}


class Template:
    """A text with values.

    Attributes:
        text: as it was written.
        fields: what stands in the braces.
    """

    def __init__(self, text: str, scope: Scope) -> None:
        self.text = text
        self._pieces: list[str] = [""]  # texts before, between and after the values
        self._formats: list[tuple[bool, str]] = []
        nodes: list[Node] = []
        fields: list[str] = []
        at = 0
        for match in _PIECE.finditer(text):
            self._pieces[-1] += text[at : match.start()] + (match[1] or "")[:1]
            at = match.end()
            if match[4]:
                raise _error(text, "a brace alone", match.span(4), hint="write {{ or }} for a brace")
            if match[1]:
                continue
            node = _value(text, match.span(2), scope)
            nodes.append(node)
            fields.append(match[2].strip())
            self._formats.append((is_wide(node), _format(text, node, match)))
            self._pieces.append("")
        self._pieces[-1] += text[at:]
        self.fields = tuple(fields)
        self._values = Emitter(answered=scope.answered, state={}).values(nodes)

    def __call__(self, event: Event, guest: Any) -> str:
        """The text for an event. Never raises; what is absent is ``-``.

        Args:
            event: of the template's reason.
            guest: a `xenintro.policy.language.expression.Guest`.
        """
        first, *rest = self._pieces
        values = self._values(event, guest)
        words = (_shown(value, *how) for value, how in zip(values, self._formats, strict=True))
        return first + "".join(word + piece for word, piece in zip(words, rest, strict=True))


def compile_template(text: str, reason: str | None, *, names: Mapping[str, Named] | None = None) -> Template:
    """A text for events of one reason: ``{register} {old_value:#x} -> {new_value:#x} from {rip}``.

    In braces is a field or another value of the language, after a colon how Python formats it. Numbers of 64
    bits are hexadecimal if nothing is said.

    Raises:
        ExpressionError: a mistake, and where.
    """
    if len(text) > MAX_LENGTH:
        raise _error(
            text, "the text is too long", (MAX_LENGTH, len(text)), why=f"{MAX_LENGTH} characters at most"
        )
    return Template(text, Scope(reason, answered=False, names={} if names is None else names))


def _value(text: str, place: tuple[int, int], scope: Scope) -> Node:
    """What stands in a pair of braces, checked; a mistake in it is one in the whole text."""
    source = Source(text[place[0] : place[1]])
    try:
        node = Checker(source, scope).value(source.parse())
    except ExpressionError as error:
        raise ExpressionError(
            error.what,
            text=text,
            offset=place[0] + error.offset,
            length=error.length,
            why=error.why,
            hint=error.hint,
            nearest=error.nearest,
        ) from None
    if node.kind == "set":
        raise _error(text, "a list is no value", place)
    if any(isinstance(part, Previous | Seen) for part in _all(node)):
        raise _error(text, "a text remembers nothing", place, hint="prev and seen are for conditions")
    return node


def _format(text: str, node: Node, match: re.Match[str]) -> str:
    form = match[3] or ""
    allowed = _FORMATS["int" if node.kind == "int" else "string"]
    if not allowed.fullmatch(form):
        like = _LIKE["int" if node.kind == "int" else "string"]
        raise _error(
            text, f"not a format of this value: {form!r}", match.span(3), hint=f"for instance {like}"
        )
    try:
        format(0 if node.kind == "int" else "", form)
    except ValueError as error:
        raise _error(text, f"not a format of this value: {form!r}", match.span(3), why=str(error)) from None
    return form


def _shown(value: Value, wide: bool, form: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and form:
        return format(value, form)
    text = shown(value, wide=wide)
    return format(text, form) if form and value is not None else text


def _all(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children():
        yield from _all(child)


def _error(text: str, what: str, place: tuple[int, int], *, why: str = "", hint: str = "") -> ExpressionError:
    span = Span(place[0], place[1] - place[0])
    return ExpressionError(what, text=text, **span._asdict(), why=why, hint=hint)
