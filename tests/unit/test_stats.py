"""Histograms: exact where they promise to be, close elsewhere, never large."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xenintro.stats import Histogram
from xenintro.units import format_ns


@given(st.lists(st.integers(0, 1 << 50), min_size=1), st.sampled_from([50, 90, 99, 100]))
def test_percentiles_are_at_most_a_sixteenth_too_high(values: list[int], percent: int) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    rank = max(0, -(-len(values) * percent // 100) - 1)
    exact = sorted(values)[rank]
    assert exact <= histogram.percentile(percent) <= exact + exact // 16 + 1
    assert (histogram.count, histogram.total, histogram.max) == (len(values), sum(values), max(values))


def test_memory_is_bounded() -> None:
    histogram = Histogram()
    for exponent in range(60):
        for step in range(64):
            histogram.record((1 << exponent) + step * ((1 << exponent) // 64))
    assert len(histogram._buckets) < 1000


def test_durations_have_units() -> None:
    cases = [
        (999, "999 ns"),
        (1500, "1.5 µs"),
        (27104, "27 µs"),
        (1_900_000, "1.9 ms"),
        (31_400_000_000, "31.4 s"),
    ]
    for nanoseconds, text in cases:
        assert format_ns(nanoseconds) == text
