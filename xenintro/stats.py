"""Counters and histograms of constant size, cheap enough for the ring's loop."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Each power of two is cut into 16: a percentile is at most 6 % too high.
_SUB_BITS = 4
_SUB = 1 << _SUB_BITS


class Histogram:
    """How often values fell where, in logarithmic buckets.

    Attributes:
        count, total, max: of the values recorded, in their unit (nanoseconds everywhere in xenintro).
    """

    __slots__ = ("_buckets", "count", "max", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.max = 0

    def record(self, value: int) -> None:
        """Add one value, zero or more."""
        self.count += 1
        self.total += value
        if value > self.max:
            self.max = value
        shift = value.bit_length() - _SUB_BITS - 1
        bucket = value if shift <= 0 else (shift << _SUB_BITS) + (value >> shift)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, percent: float) -> int:
        """The value that ``percent`` of all values do not exceed; 0 when nothing was recorded."""
        rank = self.count * percent / 100
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(_upper_bound(bucket), self.max)
        return self.max

    def below(self, limits: Sequence[int]) -> list[int]:
        """How many values were less than each limit; limits ascend and are powers of two, 32 or more."""
        counts = [0] * len(limits)
        for bucket, count in self._buckets.items():
            at = bisect_right(limits, _upper_bound(bucket))
            if at < len(counts):
                counts[at] += count
        return list(accumulate(counts))

    def add(self, other: Histogram) -> None:
        """Count everything that another has counted."""
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def since(self, earlier: Histogram) -> Histogram:
        """What was recorded since a copy was taken (`add` to an empty one); its ``max`` is that of all."""
        recent = Histogram()
        recent.count = self.count - earlier.count
        recent.total = self.total - earlier.total
        recent.max = self.max
        recent._buckets = {
            bucket: count - earlier._buckets.get(bucket, 0)
            for bucket, count in self._buckets.items()
            if count > earlier._buckets.get(bucket, 0)
        }
        return recent


def _upper_bound(bucket: int) -> int:
    if bucket < 2 * _SUB:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    return (((bucket & (_SUB - 1)) + _SUB + 1) << shift) - 1
