"""Cells: every event counted once, in the cell of its page and time, and never too many cells."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures.captures import UNHURRIED
from xenintro.export import grid
from xenintro.export.grid import Grid


def bounded(cells: Grid) -> bool:
    columns = {column for column, _, _ in cells.cells()}
    return (
        len(cells) <= grid.MAX_CELLS
        and len(cells.rows()) <= grid.MAX_ROWS
        and max(columns, default=0) < grid.MAX_COLUMNS
    )


def filled(events: list[tuple[int, int, int]], kinds: int = 3) -> Grid:
    cells = Grid(kinds)
    for at, page, of in events:
        samples = cells.add(at, page, of)
        if samples is not None:
            samples.append((at, 0, hex(page), "", "", None))
    return cells


def test_one_event() -> None:
    cells = filled([(7, 0x1000, 0b10)])
    assert cells.rows() == [0x1000]
    assert [(column, row, cell.counts) for column, row, cell in cells.cells()] == [(0, 0, [1, 0, 1, 0])]
    assert (cells.bin_ns, cells.shift, cells.begun) == (1_000, 0, 7)


def test_none() -> None:
    assert filled([]).rows() == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_COLUMNS": 16, "MAX_ROWS": 6, "MAX_CELLS": 20, "_ENOUGH_COLUMNS": 4}.items():
        monkeypatch.setattr(grid, name, value)


@pytest.mark.usefixtures("small")
def test_whatever_comes_is_counted_where_it_belongs() -> None:
    @settings(UNHURRIED)
    @given(
        st.lists(
            st.tuples(
                st.one_of(st.integers(0, 100_000), st.integers(0, 10**15)),
                st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1)),
                st.integers(0, 7),
            ),
            max_size=80,
        )
    )
    def check(events: list[tuple[int, int, int]]) -> None:
        events.sort()
        cells = filled(events)
        assert bounded(cells)
        expected: dict[tuple[int, int], list[int]] = {}
        for at, page, kinds in events:
            place = (at - cells.begun) // cells.bin_ns, page >> cells.shift << cells.shift
            counts = expected.setdefault(place, [0] * 4)
            for kind, counted in enumerate([1, kinds & 1, kinds >> 1 & 1, kinds >> 2 & 1]):
                counts[kind] += counted
        rows = cells.rows()
        assert {(column, rows[row]): cell.counts for column, row, cell in cells.cells()} == expected
        for column, _, cell in cells.cells():
            assert 1 <= len(cell.samples) <= min(grid.MAX_SAMPLES, cell.counts[0])
            assert all((sample[0] - cells.begun) // cells.bin_ns == column for sample in cell.samples)

    check()


def test_pages_stay_apart_as_long_as_there_is_room() -> None:
    chance = random.Random(1)
    events = sorted((chance.randrange(10**10), 0x1000 + chance.randrange(300), 1) for _ in range(20_000))
    cells = filled(events)
    assert bounded(cells)
    assert cells.shift == 0
    assert len({column for column, _, _ in cells.cells()}) > 30
