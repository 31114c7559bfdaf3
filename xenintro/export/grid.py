"""Counts by page and time in a bounded number of cells, whatever the capture.

Cells are sparse and begin small: a page by a microsecond. Whenever there are too many columns, rows or cells,
pairs of neighbours become one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Time, vCPU, what, where, answer, pause.
Sample = tuple[int, int, str, str, str, int | None]

MAX_COLUMNS = 2048
MAX_ROWS = 1024
MAX_CELLS = 16384

#: Time is given up first, down to so many columns; then whichever there is more of.
_ENOUGH_COLUMNS = 256

#: The first events of a cell are kept.
MAX_SAMPLES = 5


class Cell(NamedTuple):
    """What happened to the pages of a row in the time of a column.

    Attributes:
        counts: events, then those of each kind; an event may be of several kinds, or none.
        samples: the first `MAX_SAMPLES` events.
    """

    counts: list[int]
    samples: list[Sample]


class Grid:
    """Counts events.

    Args:
        kinds: how many kinds are told apart.

    Attributes:
        begun: time of the first column, nanoseconds: that of the first event if nobody sets it.
        bin_ns: a column's length.
        shift: a row is ``1 << shift`` pages.
    """

    def __init__(self, kinds: int) -> None:
        self._kinds = kinds
        self._cells: dict[tuple[int, int], Cell] = {}  # by column and row
        self._rows: set[int] = set()
        self._columns = 0
        self.begun: int | None = None
        self.bin_ns = 1_000
        self.shift = 0

    def __len__(self) -> int:
        return len(self._cells)

    def add(self, at: int, page: int, kinds: int) -> list[Sample] | None:
        """Count an event.

        Args:
            at: when, nanoseconds; what is before the first event counts as at its time.
            page: the page's number.
            kinds: the kinds that it is of, a bit each.

        Returns:
            Where a sample of it should be put, None if the cell has enough.
        """
        if self.begun is None:
            self.begun = at
        cell = self._cell(max(at - self.begun, 0), page)
        counts = cell.counts
        counts[0] += 1
        for kind in range(self._kinds):
            counts[kind + 1] += kinds >> kind & 1
        return None if len(cell.samples) == MAX_SAMPLES else cell.samples

    def rows(self) -> list[int]:
        """First page of each row that has cells, ascending."""
        return [row << self.shift for row in sorted(self._rows)]

    def cells(self) -> Iterator[tuple[int, int, Cell]]:
        """Column, place among `rows`, and cell."""
        places = {row: place for place, row in enumerate(sorted(self._rows))}
        return ((column, places[row], self._cells[column, row]) for column, row in sorted(self._cells))

    def _cell(self, offset: int, page: int) -> Cell:
        while True:
            column, row = offset // self.bin_ns, page >> self.shift
            cell = self._cells.get((column, row))
            if cell is not None:
                return cell
            full = len(self._cells) >= MAX_CELLS
            if column >= MAX_COLUMNS or (full and self._columns > min(_ENOUGH_COLUMNS, len(self._rows))):
                self._merge(1, 0)
            elif full or (row not in self._rows and len(self._rows) >= MAX_ROWS):
                self._merge(0, 1)
            else:
                cell = self._cells[column, row] = Cell([0] * (self._kinds + 1), [])
                self._rows.add(row)
                self._columns = max(self._columns, column + 1)
                return cell

    def _merge(self, columns: int, rows: int) -> None:
        """Halve the number of columns or rows."""
        self.bin_ns <<= columns
        self.shift += rows
        before, self._cells = self._cells, {}
        for (column, row), cell in before.items():
            place = column >> columns, row >> rows
            other = self._cells.setdefault(place, cell)
            if other is not cell:
                both = sorted(other.samples + cell.samples)[:MAX_SAMPLES]
                counts = [a + b for a, b in zip(other.counts, cell.counts, strict=True)]
                self._cells[place] = Cell(counts, both)
        self._rows = {row for _, row in self._cells}
        self._columns = max((column for column, _ in self._cells), default=-1) + 1
