"""Reading the memory of a live guest: a page is mapped, copied and unmapped."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from xenintro.errors import GuestReadError, XenintroError
from xenintro.units import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from xenintro.xen.xc import Xc


class LiveMemory:
    """An `xenintro.guest.Memory` of a domain.

    Pages are kept for the event that they were read for: what is read twice is the same twice. None stays
    mapped, a mapping would keep a dead domain from being freed.
    """

    def __init__(self, xc: Xc, domid: int) -> None:
        self._xc = xc
        self._domid = domid
        self._pages: dict[int, bytes] = {}

    def begin(self, now_ns: int) -> None:
        """See `xenintro.guest.Memory.begin`."""
        if self._pages:
            self._pages.clear()

    def read(self, gpa: int, size: int) -> bytes:
        """See `xenintro.guest.Memory.read`."""
        first, start = gpa >> PAGE_SHIFT, gpa & (PAGE_SIZE - 1)
        last = gpa + size - 1 >> PAGE_SHIFT
        return b"".join(map(self._page, range(first, last + 1)))[start : start + size]

    def _page(self, gfn: int) -> bytes:
        page = self._pages.get(gfn)
        if page is None:
            try:
                address = self._xc.map_page(self._domid, gfn, mmap.PROT_READ)
                page = self._pages[gfn] = self._xc.library.bytes_at(address, PAGE_SIZE)
                self._xc.unmap_page(address)
            except XenintroError as error:
                raise GuestReadError(
                    f"cannot read guest memory at gfn {gfn:#x}", why=error.why or error.what
                ) from error
        return page
