"""Numbers as people write them."""

from __future__ import annotations

import pytest

from xenintro.errors import UsageError
from xenintro.units import parse_duration, parse_int


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("500ms", 0.5),
        (".5s", 0.5),
        ("1.5m", 90),
        ("2", 2),
        ("2.", 2),
        ("1h", 3600),
        ("7us", 7e-6),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", ".", "s", ".s", "-1s", "1 s", "1d", "0x1s", "1..5s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "number"), [("10", 10), ("0x10", 16), ("0XfF", 255), (str(2**64 - 1), 2**64 - 1)]
)
def test_numbers(text: str, number: int) -> None:
    assert parse_int(text) == number


@pytest.mark.parametrize("text", ["", "-1", "x", "1.5", str(2**64), "0x"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(UsageError, match="not a number"):
        parse_int(text)
