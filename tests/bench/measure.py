"""How to time things on a shared, noisy machine: interleaved rounds, medians, spread."""

from __future__ import annotations

import statistics
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 15


class Timing(NamedTuple):
    """Median over rounds, and the quartiles around it; the unit is the caller's."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        low, median, high = statistics.quantiles(values, n=4)
        return cls(median, low, high)


class Row(NamedTuple):
    """One line of the report: ours beside a reference that ran in the same rounds."""

    name: str
    unit: str
    ours: Timing
    reference_name: str = ""
    reference: Timing | None = None
    ratio: Timing | None = None
    goal: str = ""


def per_call_ns(function: Callable[[], object], calls: int = 20_000) -> float:
    """Nanoseconds of one call, the loop's own cost included."""
    begin = perf_counter_ns()
    for _ in range(calls):
        function()
    return (perf_counter_ns() - begin) / calls


def against(
    name: str,
    ours: Callable[[], float],
    reference_name: str,
    reference: Callable[[], float],
    *,
    unit: str,
    goal: str = "",
    rounds: int = ROUNDS,
) -> Row:
    """Run both in turns; the ratio is taken within each round, so that slow rounds cancel out."""
    pairs = [(ours(), reference()) for _ in range(rounds)]
    return Row(
        name,
        unit,
        Timing.of([one for one, _ in pairs]),
        reference_name,
        Timing.of([other for _, other in pairs]),
        Timing.of([one / other for one, other in pairs]),
        goal,
    )
