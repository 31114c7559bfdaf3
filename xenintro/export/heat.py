"""Which pages are touched when: what a heatmap shows, and what is said of pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenintro.abi import Access
from xenintro.events import MemAccess
from xenintro.export.busiest import Busiest, Counted
from xenintro.export.code import code_address, counter_name
from xenintro.export.grid import Grid
from xenintro.sinks.text import what
from xenintro.units import PAGE_SHIFT

if TYPE_CHECKING:
    from xenintro.answered import Answered
    from xenintro.export.grid import Sample

#: Kinds of access, by the bit of their flag.
KINDS = ("read", "write", "execute")
_ANY, _WRITE, _EXECUTE = (int(flags) for flags in (Access.R | Access.W | Access.X, Access.W, Access.X))


class Page(Counted):
    """A guest page.

    Attributes:
        kinds: accesses of each kind.
        first, last: time of the first access and of the last.
        written: time of the first write, None if there was none.
        unpacked: time of the first execution after a write, None if there was none.
    """

    __slots__ = ("first", "kinds", "last", "unpacked", "written")

    def __init__(self) -> None:
        super().__init__()
        self.kinds = [0] * len(KINDS)
        self.first = self.last = 0
        self.written: int | None = None
        self.unpacked: int | None = None


class Heat:
    """Collects; ``data`` is for the page's script.

    Attributes:
        pages: the busiest.
        accesses: memory accesses seen.
    """

    def __init__(self) -> None:
        self._gfns = Grid(len(KINDS))
        self._code = Grid(0)
        self.pages = Busiest(Page)
        self.accesses = 0
        self._counter = ""

    def add(self, answered: Answered) -> None:
        """One request."""
        event, at = answered.event, answered.taken_ns
        if self._code.begun is None:
            self._code.begun = self._gfns.begun = at
            self._counter = counter_name(event.interface)
        address = code_address(event)
        wanted: list[list[Sample] | None] = []
        if isinstance(event, MemAccess):
            kinds = event.access_flags & _ANY
            self.accesses += 1
            self._page(event.gfn, kinds, at)
            wanted.append(self._gfns.add(at, event.gfn, kinds))
        if address is not None:
            wanted.append(self._code.add(at, address >> PAGE_SHIFT, 0))
        samples = [one for one in wanted if one is not None]
        if samples:
            sample = _sample(answered, address)
            for one in samples:
                one.append(sample)

    @property
    def has_code(self) -> bool:
        """Whether any event says where the guest was."""
        return bool(len(self._code))

    def unpacked(self) -> list[tuple[int, Page]]:
        """Pages that were written and executed afterwards, the earliest first."""
        found = [(gfn, page) for gfn, page in self.pages.items() if page.unpacked is not None]
        return sorted(found, key=lambda item: item[1].unpacked or 0)

    def data(self) -> dict[str, Any]:
        """For the page's script: numbers of 64 bits are hexadecimal, times count from the first event."""
        unpacked = {gfn >> self._gfns.shift for gfn, _ in self.unpacked()}
        counter = f"regs.{self._counter}"
        return {
            "gfn": _grid(self._gfns, 0, unpacked) | {"kinds": KINDS, "field": "mem_access.gfn"},
            "code": _grid(self._code, PAGE_SHIFT, set()) | {"kinds": ["event"], "field": counter},
        }

    def _page(self, gfn: int, kinds: int, at: int) -> None:
        page = self.pages.count(gfn)
        for kind in range(len(KINDS)):
            page.kinds[kind] += kinds >> kind & 1
        page.last = at
        if page.count == 1:
            page.first = at
        if kinds & _EXECUTE and page.written is not None and page.unpacked is None:
            page.unpacked = at
        if kinds & _WRITE and page.written is None:
            page.written = at


def _sample(answered: Answered, address: int | None) -> Sample:
    event = answered.event
    return (
        answered.taken_ns,
        event.vcpu_id,
        f"{event.reason}  {what(event, '→')}",
        "" if address is None else hex(address),
        answered.answer if answered.would is None else f"would {answered.would}",
        answered.pause_ns,
    )


def _grid(grid: Grid, shift: int, marked: set[int]) -> dict[str, Any]:
    begun = grid.begun or 0
    rows, cells = grid.rows(), list(grid.cells())
    return {
        "bin": grid.bin_ns,
        "span": hex(1 << grid.shift + shift),
        "rows": [hex(row << shift) for row in rows],
        "marked": [place for place, row in enumerate(rows) if row >> grid.shift in marked],
        "cells": [[column, row, *cell.counts] for column, row, cell in cells],
        "samples": [[[at - begun, *rest] for at, *rest in cell.samples] for _, _, cell in cells],
    }
