"""What the names in an expression mean: fields, what the caller gives, and names of MSRs and bits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from xenintro.abi import BITS, MSRS
from xenintro.events import EVENT_TYPES
from xenintro.fields import FIELDS, Field, always_there, plain_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: A constant or a list that an expression may use by its name.
Named = int | str | Sequence[int | str]


class Names(dict[str, Named]):
    """Constants and lists of a file of rules, and the addresses of its symbols by their names."""

    def __init__(self, names: Mapping[str, Named], symbols: Mapping[str, Sequence[int]]) -> None:
        super().__init__(names)
        self.symbols = symbols


#: Names for numbers: MSRs in capitals, bits of control registers.
SYMBOLS: Mapping[str, int] = {**{name.upper(): number for name, number in MSRS.items()}, **BITS}


class Meaning(NamedTuple):
    """A field as an expression of this scope sees it.

    Attributes:
        name: of the field; as it was written where it is one field of several kinds of events.
        fields: with the reasons of the events that they are read of; None for all that come.
        absent: it may have no value.
    """

    name: str
    fields: tuple[tuple[frozenset[str] | None, Field], ...]
    absent: bool


class Scope:
    """Names for one kind of event, or for all.

    Args:
        reason: of the events; None for all.
        answered: the events are answered, and that is known too: a filter.
        names: constants and lists.
    """

    def __init__(self, reason: str | None, *, answered: bool, names: Mapping[str, Named]) -> None:
        self.reason = reason
        self.answered = answered
        self.names = names
        self.symbols: Mapping[str, Sequence[int]] = names.symbols if isinstance(names, Names) else {}

    def __str__(self) -> str:
        return "a filter" if self.answered else self.reason or "a rule"

    def field(self, name: str) -> Meaning | None:
        """The field of this name, None if these events have none."""
        if self.reason is not None:
            field = plain_fields(self.reason).get(name) or FIELDS.get(name)
            if field is None or field.reason not in (None, self.reason) or not self._known(field):
                return None
            return Meaning(field.name, ((None, field),), not always_there(field))
        if (field := FIELDS.get(name)) is not None and field.reason is not None:
            return Meaning(name, ((frozenset({field.reason}), field),), True)
        return self._of_any(name)

    def why_not(self, name: str) -> str:
        """Why a name that is a field somewhere is none here; empty if it is none anywhere."""
        field = FIELDS.get(name)
        if field is not None and not self._known(field):
            return (
                "only outputs have it" if field.of == "output" else "it is known once the rules have answered"
            )
        having = (
            [field.reason]
            if field is not None and field.reason
            else [reason for reason in EVENT_TYPES if name in plain_fields(reason)]
        )
        return f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} it" if having else ""

    def nearest(self, name: str, others: Iterable[str]) -> str | None:
        """The right word for a wrong one."""
        reasons = EVENT_TYPES if self.reason is None else (self.reason,)
        words = {
            *others,
            *self.names,
            *SYMBOLS,
            *(
                word
                for reason in reasons
                for word, field in plain_fields(reason).items()
                if self._known(field)
            ),
            *(
                word
                for word, field in FIELDS.items()
                if field.reason in (None, *reasons) and self._known(field)
            ),
        }
        return nearest(name, words)

    def _known(self, field: Field) -> bool:
        return field.of != "output" and (self.answered or field.of != "answered")

    def _of_any(self, name: str) -> Meaning | None:
        """One name for the fields of several kinds of events: each as in a rule for that kind."""
        groups: dict[tuple[object, ...], tuple[set[str], Field]] = {}
        absent = False
        for reason in EVENT_TYPES:
            field = plain_fields(reason).get(name) or FIELDS.get(name)
            if field is None or not self._known(field):
                absent = True
                continue
            absent |= not always_there(field)
            groups.setdefault((field.of, field.key, field.bit, field.values), (set(), field))[0].add(reason)
        if not groups:
            return None
        if len(groups) == 1 and all(len(reasons) == len(EVENT_TYPES) for reasons, _ in groups.values()):
            return Meaning(name, tuple((None, field) for _, field in groups.values()), absent)
        return Meaning(name, tuple((frozenset(reasons), field) for reasons, field in groups.values()), absent)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The most similar word, case aside; None if none is."""
    by_case: dict[str, str] = {}
    for one in sorted(words):
        by_case.setdefault(one.lower(), one)
    letters = sorted(word.lower())
    close = [one for one in by_case if sorted(one) == letters]  # two letters swapped
    close = close or difflib.get_close_matches(word.lower(), by_case, n=1)
    return by_case[close[0]] if close else None
