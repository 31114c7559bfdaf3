"""A domain's memory: its machine pages, which gfns they are behind, and who has them mapped."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from xenintro.units import PAGE_SIZE

#: Guest pages with memory, and the highest gfn in the physmap: a hole lies between.
RAM_PAGES = 0x4000
MAX_GFN = 0x4FFF
_SPECIAL_PAGES = range(0x4FF0, 0x5000)

#: Pages that a domain may have beyond those it was built with (what max_memkb leaves).
SPARE_PAGES = 256


class Memory:
    """Machine pages by frame, the physmap by gfn.

    The page that a guest was built with behind a gfn has that number as its frame; more come after them.

    Attributes:
        fd: all pages, a frame at ``frame * PAGE_SIZE``.
        ram: our mapping of the pages that the guest was built with.
        spare: pages that may still be added before the domain is at its limit.
    """

    def __init__(self, name: str) -> None:
        built = MAX_GFN + 1
        self.fd = os.memfd_create(f"xenintro-{name}", os.MFD_CLOEXEC)
        os.truncate(self.fd, (built + SPARE_PAGES) * PAGE_SIZE)
        self._inode = str(os.fstat(self.fd).st_ino)
        self.ram = mmap.mmap(self.fd, built * PAGE_SIZE)
        self.spare = SPARE_PAGES
        self._behind: dict[int, int | None] = {}  # gfns whose page is not the one they were built with
        self._next = built
        self._freed: list[int] = []
        self._clients: set[int] = set()

    def close(self) -> None:
        """Free every page, but for those that a client maps."""
        self.ram.close()
        os.close(self.fd)

    def frame(self, gfn: int) -> int | None:
        """The page behind a gfn, None where there is none."""
        if gfn in self._behind:
            return self._behind[gfn]
        return gfn if 0 <= gfn < RAM_PAGES or gfn in _SPECIAL_PAGES else None

    def page(self, frame: int) -> mmap.mmap:
        """A mapping of one page."""
        return mmap.mmap(self.fd, PAGE_SIZE, offset=frame * PAGE_SIZE)

    def populate(self, gfn: int) -> bool:
        """XENMEM_populate_physmap of one gfn outside the RAM; False at the limit.

        The heap gives what was freed last, with what was on it: pages are scrubbed only when their
        domain is dying (free_domheap_pages). A page that was there stays the domain's, lost to it.
        """
        if not RAM_PAGES <= gfn <= MAX_GFN:
            return False
        frame = next((freed for freed in reversed(self._freed) if not self.mapped(freed)), None)
        if frame is not None:
            self._freed.remove(frame)
        elif self.spare:
            self.spare -= 1
            frame, self._next = self._next, self._next + 1
        else:
            return False
        self._behind[gfn] = frame
        return True

    def take(self, gfn: int) -> int:
        """XENMEM_decrease_reservation of one gfn whose page somebody still holds: its frame."""
        frame = self.frame(gfn)
        assert frame is not None
        self._behind[gfn] = None
        return frame

    def free(self, frame: int) -> None:
        """Xen holds a page no longer; it is free once no client maps it."""
        self._freed.append(frame)

    def handed_to(self, pid: int) -> None:
        """A client got the descriptor and may map pages."""
        self._clients.add(pid)

    def mapped(self, frame: int | None = None) -> bool:
        """Whether any client maps a page, or this one."""
        self._clients = {pid for pid in self._clients if Path(f"/proc/{pid}").exists()}
        ranges = [one for pid in self._clients for one in self._mappings(pid)]
        return any(frame is None or start <= frame < end for start, end in ranges)

    def _mappings(self, pid: int) -> list[tuple[int, int]]:
        """What a process maps of it, as ranges of frames."""
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            return []
        ranges = []
        for line in lines:
            addresses, _, offset, _, inode, *_ = line.split()
            if inode == self._inode and "/memfd:xenintro-" in line:
                low, high = (int(address, 16) for address in addresses.split("-"))
                first = int(offset, 16) // PAGE_SIZE
                ranges.append((first, first + (high - low) // PAGE_SIZE))
        return ranges
