"""Where in a TOML file its keys are: tomllib gives values without positions."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: Names and numbers from the top of the document to a value: ``("rule", 0, "when")``.
Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|("(?:[^"\\\n]|\\.)*"|'[^'\n]*'))[ \t]*""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\[\s\S])*?"{3,5}|\'\'\'[\s\S]*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'',
)
_PLAIN = re.compile(r"[^,\]}\n#]*")


class Place(NamedTuple):
    """A key: its line, the line on which its value's text begins, and its column there, all from 1.

    ``column`` is None where a position in the value is none in the file: an escape or a line end in it.
    """

    line: int
    text_line: int
    column: int | None = None


class Places:
    """The places of every key of a document that tomllib has read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._places: dict[Path, Place] = {}
        self._tables: dict[Path, int] = {}  # arrays of tables: the number of the last one
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._document()

    def of(self, path: Path) -> Place:
        """The place of a key, or of the nearest one around it."""
        for end in range(len(path), 0, -1):
            if (place := self._places.get(path[:end])) is not None:
                return place
        return Place(1, 1)

    def _document(self) -> None:
        text = self._text
        table: Path = ()
        while True:
            self._skip()
            if self._at >= len(text):
                return
            line = self._line()
            if text.startswith("[", self._at):
                twice = text.startswith("[[", self._at)
                self._at += 1 + twice
                table = self._table(self._keys(), twice)
                self._places.setdefault(table, Place(line, line))
                self._at += 1 + twice
            else:
                self._pair(table)

    def _table(self, keys: Path, twice: bool) -> Path:
        """The path of a header: a table below an array of tables is one of its last element."""
        path: Path = ()
        for key in keys[:-1]:
            path += (key,)
            if path in self._tables:
                path += (self._tables[path],)
        path += (keys[-1],)
        if twice:
            number = self._tables[path] = self._tables.get(path, -1) + 1
            self._places.setdefault(path, Place(self._line(), self._line()))
            path += (number,)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = table + self._keys()
        self._at += 1  # the equals sign
        self._skip()
        for end in range(len(table) + 1, len(path)):
            self._places.setdefault(path[:end], Place(line, line))
        self._places[path] = self._place(line)
        self._value(path)

    def _value(self, path: Path) -> None:
        match self._text[self._at : self._at + 1]:
            case "{":
                self._items("}", lambda number: self._pair(path))
            case "[":
                self._items("]", lambda number: self._element((*path, number)))
            case '"' | "'":
                self._match(_STRING)
            case _:
                self._match(_PLAIN)

    def _element(self, path: Path) -> None:
        self._places[path] = self._place(self._line())
        self._value(path)

    def _items(self, closing: str, item: Callable[[int], None]) -> None:
        self._at += 1
        number = 0
        while True:
            self._skip()
            here = self._text[self._at : self._at + 1]
            if here in ("", closing):
                break
            if here == ",":
                self._at += 1
                continue
            item(number)
            number += 1
        self._at += 1

    def _keys(self) -> Path:
        keys: list[str] = []
        while (match := _KEY.match(self._text, self._at)) is not None:
            self._at = match.end()
            bare, quoted = match.groups()
            keys.append(bare or next(iter(tomllib.loads(f"{quoted}=0"))))
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return tuple(keys)

    def _place(self, line: int) -> Place:
        match = _STRING.match(self._text, self._at)
        if match is None:
            return Place(line, line)
        quotes = 3 if match[0].startswith(('"""', "'''")) else 1
        column = self._at + quotes - self._text.rfind("\n", 0, self._at)
        # A line end right behind three quotes belongs to them.
        begins = line + bool(re.match(r"\r?\n", match[0][quotes:]))
        return Place(line, begins, None if re.search(r"[\\\n]", match[0]) else column)

    def _skip(self) -> None:
        self._match(_BLANK)

    def _match(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        # tomllib has read the text: a value that does not match is none, and the scan must go on.
        self._at = max(match.end() if match else 0, self._at + (match is None))

    def _line(self) -> int:
        return bisect_left(self._ends, self._at) + 1
