"""Text to a syntax tree of nothing but what the language has: Python's expressions cut down."""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

from xenintro.errors import ExpressionError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Characters, nodes and levels of an expression, and characters of a string in it.
MAX_LENGTH = 4096
MAX_NODES = 1000
MAX_DEPTH = 24
MAX_STRING = 256

_ALLOWED: tuple[type[ast.AST], ...] = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Invert),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod),
    *(ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn),
    *(ast.Call, ast.Name, ast.Attribute, ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Load),
)

_INSTEAD: dict[type[ast.AST], str] = {
    ast.Div: "write // for a whole quotient",
    ast.Pow: "write a power of two as 1 << n",
    ast.Is: "write ==",
    ast.IsNot: "write !=",
    ast.IfExp: "write and, or",
    ast.Subscript: "write bit(value, n) for a bit",
    ast.JoinedStr: "write a plain string",
}

#: Strings as Python has them on one line; then what would make Python read a key as a word of its own.
_PIECE = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(\.\s*)in\b""")
#: Stands for the key ``in`` while Python parses: as long, and no field's name.
_IN = "iN"


class Span(NamedTuple):
    """Where a part of the text is, in characters from 0."""

    offset: int
    length: int


class Source:
    """The text of an expression, and where in it a node is."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._indent = len(text) - len(text.lstrip())
        # Line ends mean nothing, as between Python's parentheses.
        self._line = re.sub(r"[\n\r\t\f]", " ", text[self._indent :])
        self._bytes = self._line.encode()

    def parse(self) -> ast.expr:
        """The tree.

        Raises:
            ExpressionError: no expression, something that the language does not have, or too much of it.
        """
        if len(self.text) > MAX_LENGTH:
            raise self.error(
                "the expression is too long",
                Span(MAX_LENGTH, 1),
                why=f"{len(self.text)} characters, {MAX_LENGTH} at most",
            )
        if not self._line:
            raise self.error("the expression is empty", Span(0, 1), hint="for instance: vcpu_id == 0")
        if (at := _outside_strings(self._line, "#\\;")) is not None:
            raise self.error("a character that no expression has", Span(self._indent + at, 1))
        line = _PIECE.sub(lambda found: found[1] or f"{found[2]}{_IN}", self._line)
        tree = self._parsed(line)
        self._check(tree)
        return tree

    def span(self, node: ast.expr) -> Span:
        """Where a node is."""
        begin = len(self._bytes[: node.col_offset].decode(errors="ignore"))
        end = len(self._bytes[: node.end_col_offset or 0].decode(errors="ignore"))
        return Span(self._indent + begin, max(1, end - begin))

    def part(self, node: ast.expr) -> str:
        """A node as it was written."""
        span = self.span(node)
        return self.text[span.offset : span.offset + span.length]

    def error(
        self, what: str, at: ast.expr | Span, *, why: str = "", hint: str = "", nearest: str | None = None
    ) -> ExpressionError:
        """A mistake at a node."""
        span = at if isinstance(at, Span) else self.span(at)
        return ExpressionError(what, text=self.text, **span._asdict(), why=why, hint=hint, nearest=nearest)

    def _parsed(self, line: str) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(line, mode="eval").body
        except SyntaxError as error:
            at = Span(self._indent + min(len(line), (error.offset or len(line) + 1) - 1), 1)
            raise self.error("not an expression", at, why=_said(error)) from None
        except (ValueError, RecursionError, MemoryError):
            raise self.error("not an expression", Span(self._indent, len(line))) from None

    def _check(self, tree: ast.expr) -> None:
        """Every node is allowed, and there are not too many. Level by level: a deep tree ends no process."""
        level: Sequence[tuple[ast.AST, ast.expr]] = [(tree, tree)]
        count = 0
        for _ in range(MAX_DEPTH):
            following: list[tuple[ast.AST, ast.expr]] = []
            for node, around in level:
                at = node if isinstance(node, ast.expr) else around
                self._check_node(node, at)
                following += ((child, at) for child in ast.iter_child_nodes(node))
            count += len(level)
            if count > MAX_NODES:
                raise self.error("the expression has too many parts", at, why=f"{MAX_NODES} at most")
            level = following
            if not level:
                return
        raise self.error(
            "the expression is nested too deeply", level[0][1], why=f"{MAX_DEPTH} levels at most"
        )

    def _check_node(self, node: ast.AST, at: ast.expr) -> None:
        if not isinstance(node, _ALLOWED):
            raise self.error(
                "the language has no such thing",
                at,
                why="it has fields, lists, numbers, strings, and or not, comparisons, arithmetic, calls",
                hint=_INSTEAD.get(type(node), ""),
            )
        if isinstance(node, ast.Constant):
            self._check_constant(node)
        if isinstance(node, ast.Call) and (node.keywords or not isinstance(node.func, ast.Name)):
            raise self.error("not a call of the language", node, why="it is name(value, ...)")

    def _check_constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, str):
            if len(value) > MAX_STRING:
                raise self.error("the string is too long", node, why=f"{MAX_STRING} characters at most")
        elif isinstance(value, int):  # bools too
            if value.bit_length() > 64:
                raise self.error("the number is too large", node, why="64 bits at most")
        elif value is None:
            raise self.error("there is no None", node, hint="ask has(field) whether a field is there")
        else:
            raise self.error("neither a number nor a string", node, hint="numbers are whole: 5, 0x1000")


def name_of(node: ast.Name | ast.Attribute) -> str:
    """A name as it was written."""
    word = node.id if isinstance(node, ast.Name) else node.attr
    return "in" if word == _IN else word


def _outside_strings(text: str, characters: str) -> int | None:
    """The first place of one of the characters that is in no string."""
    at = 0
    while at < len(text):
        if (string := _PIECE.match(text, at)) is not None and string[1]:
            at = string.end()
            continue
        if text[at] in characters:
            return at
        at += 1
    return None


def _said(error: SyntaxError) -> str:
    """What Python says, where that helps."""
    said = error.msg.partition(" (<")[0]
    return "" if "invalid syntax" in said else said.replace("f-string: ", "")
