"""A ring page at rest: a file, a crash dump, a fixture. Live rings are xenintro.xen.ring's."""

from __future__ import annotations

from typing import NamedTuple

from xenintro.abi import RING_INDICES, SLOT0, Interface
from xenintro.errors import DamagedInputError
from xenintro.units import PAGE_SIZE


class Slot(NamedTuple):
    """A slot of the page. ``ring_index`` is the free-running ring index, None for a slot at rest."""

    ring_index: int | None
    slot: int
    raw: bytes


class RingPage:
    """The bytes of one shared ring page, with its indices checked.

    Attributes:
        req_prod, req_event, rsp_prod, rsp_event: the indices in the page (io/ring.h).

    Raises:
        DamagedInputError: not one page, or indices that no ring can have.
    """

    def __init__(self, page: bytes, interface: Interface) -> None:
        if len(page) != PAGE_SIZE:
            size = f"more than {PAGE_SIZE}" if len(page) > PAGE_SIZE else str(len(page))
            raise DamagedInputError(
                f"not a ring page: {size} bytes",
                why=f"a ring is exactly one page of {PAGE_SIZE} bytes",
                hint="cut it out of the dump, for instance: dd bs=4096 count=1 skip=N",
            )
        self._page = page
        self._interface = interface
        self.req_prod, self.req_event, self.rsp_prod, self.rsp_event = RING_INDICES.unpack_from(page)
        if self.unanswered > interface.nr_slots:
            raise DamagedInputError(
                f"impossible ring indices: req_prod {self.req_prod}, rsp_prod {self.rsp_prod}",
                why=f"{self.unanswered} unanswered requests, but {interface.id} has "
                f"{interface.nr_slots} slots",
                hint="is this a ring page, and of this interface? see: xenintro decode --help",
            )

    @property
    def unanswered(self) -> int:
        """How many requests have no response."""
        count: int = (self.req_prod - self.rsp_prod) & 0xFFFFFFFF
        return count

    def requests(self) -> list[Slot]:
        """The unanswered requests, oldest first."""
        first = self.rsp_prod
        return [self._slot(first + n & 0xFFFFFFFF) for n in range(self.unanswered)]

    def slots(self) -> list[Slot]:
        """Every slot as it stands, answered and stale ones included."""
        return [self._slot(number)._replace(ring_index=None) for number in range(self._interface.nr_slots)]

    def _slot(self, index: int) -> Slot:
        size = self._interface.slot_size
        number = index & (self._interface.nr_slots - 1)
        start = SLOT0 + number * size
        return Slot(index, number, self._page[start : start + size])
