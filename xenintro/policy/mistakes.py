"""What is wrong with a file of rules: each mistake with its line, key, and the nearest right word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import ExpressionError, PolicyError, XenintroError
from xenintro.policy.language.scope import nearest
from xenintro.policy.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from xenintro.policy.places import Path as Keys


class Mistakes:
    """Mistakes in one file, in the order in which they are found.

    Args:
        path: of the file, as mistakes call it.
        text: of the file.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._places = Places(text)
        self._found: list[tuple[int, PolicyError]] = []

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[PolicyError]:
        """In the order of the file."""
        return (mistake for _, mistake in sorted(self._found, key=lambda found: found[0]))

    def line(self, keys: Keys) -> int:
        """The line of a key."""
        return self._places.of(keys).line

    def add(
        self,
        keys: Keys,
        what: str,
        *,
        why: str = "",
        hint: str = "",
        word: str = "",
        known: Iterable[str] = (),
    ) -> None:
        """Something is wrong at a key.

        Args:
            keys: where.
            what: is wrong.
            why: it is.
            hint: what to do instead.
            word: that is wrong, if it is one of a few that may stand there...
            known: ...which are these.
        """
        words = list(known)
        if words:
            close = nearest(word, words)
            why = why or f"known are {', '.join(words)}"
            hint = f"did you mean {close}?" if close else hint
        line = self.line(keys)
        what = f"{self._path}:{line}: {_called(keys)}{what}"
        self._found.append((line, PolicyError(what, why=why, hint=hint)))

    def raised(self, keys: Keys, error: XenintroError) -> None:
        """What the value of a key made another part raise."""
        if not isinstance(error, ExpressionError):
            self.add(keys, error.what, why=error.why, hint=error.hint)
            return
        place = self._places.of(keys)
        line = place.text_line + error.text.count("\n", 0, error.offset)
        column = "" if place.column is None else f":{place.column + error.offset}"
        mistake = ExpressionError(
            f"{self._path}:{line}{column}: {_called(keys)}{error.what}",
            text=error.text,
            offset=error.offset,
            length=error.length,
            why=error.why,
            hint=error.hint,
            nearest=error.nearest,
        )
        self._found.append((line, mistake))


def _called(keys: Keys) -> str:
    """A key as people write it: from its rule on."""
    words: list[str] = []
    for key in keys:
        if isinstance(key, str):
            words.append(key)
        elif words and words[-1] not in ("rule", "test"):
            words[-1] += f"[{key}]"
    while len(words) > 1 and words[0] == "rule":
        words.pop(0)
    return f"{'.'.join(words)}: " if words else ""
