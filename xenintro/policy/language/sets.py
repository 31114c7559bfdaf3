"""Sets of numbers: single ones and ranges, from what people write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from xenintro.units import U64_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_RANGE = re.compile(r"\s*(0[xX][0-9a-fA-F]+|\d+)\s*(?:-\s*(0[xX][0-9a-fA-F]+|\d+)\s*)?")


class IntSet(msgspec.Struct, frozen=True):
    """Numbers, as ranges in order that do not touch each other.

    Attributes:
        ranges: first and last number of each.
    """

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> IntSet:
        """The union of ranges."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = joined[-1][0], max(joined[-1][1], last)
            else:
                joined.append((first, last))
        return cls(tuple(joined))

    @property
    def singles(self) -> bool:
        """Whether no range has more than one number."""
        return all(first == last for first, last in self.ranges)

    def bounds(self) -> tuple[int, ...]:
        """Where it begins and ends to hold, in turn: in it is what has an odd number of them not above."""
        return tuple(bound for first, last in self.ranges for bound in (first, last + 1))


def parse_range(text: str, names: Mapping[str, int]) -> tuple[int, int] | None:
    """First and last number of ``0x1000``, ``0x1000-0x1fff`` or a name; None if it is none of these."""
    if (named := names.get(text.strip().lower())) is not None:
        return named, named
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    try:
        first = int(match[1], 0)
        last = int(match[2], 0) if match[2] else first
    except ValueError:  # 010: neither octal nor decimal
        return None
    return (first, last) if first <= last <= U64_MAX else None
