"""Records of the keys that come most often, in a bounded number, however many keys there are."""

from __future__ import annotations

from typing import Generic, TypeVar

Record = TypeVar("Record", bound="Counted")

#: What is kept after a clearing; up to twice as many in between.
CAPACITY = 8192


class Counted:
    """What is known of a key; subclasses know more.

    Attributes:
        count: how often it came.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Busiest(Generic[Record]):
    """Counts keys, and forgets the rarest whenever there are too many.

    Args:
        new: makes the record of a key that was not known.

    Attributes:
        short: a count may be so much too low, at most; 0 as long as nothing was forgotten.
    """

    def __init__(self, new: type[Record]) -> None:
        self._new = new
        self._records: dict[int, Record] = {}
        self.short = 0

    def __len__(self) -> int:
        return len(self._records)

    def count(self, key: int) -> Record:
        """Count a key, and give its record."""
        record = self._records.get(key)
        if record is None:
            if len(self._records) >= 2 * CAPACITY:
                self._forget()
            record = self._records[key] = self._new()
        record.count += 1
        return record

    def items(self) -> list[tuple[int, Record]]:
        """Keys with their records, the most frequent first."""
        return sorted(self._records.items(), key=lambda item: (-item[1].count, item[0]))

    def _forget(self) -> None:
        ranked = self.items()
        self.short += ranked[CAPACITY][1].count
        self._records = dict(ranked[:CAPACITY])
