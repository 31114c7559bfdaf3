"""A second way to a monitor's ring: the page, mapped by a process that outlives the monitor.

xc_monitor_enable takes the ring page out of the guest's physmap (xc_vm_event_enable, xc_vm_event.c), so
after a monitor's death nobody can map it again, and vCPUs that wait inside Xen for a free slot wait for ever.
A mapping made before that stays good: who has it can answer what the dead monitor did not.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from xenintro.errors import XenintroError
from xenintro.xen._native import ffi
from xenintro.xen.domains import domain_info, is_gone

if TYPE_CHECKING:
    from xenintro.xen.xc import Xc

_HVM_PARAM_MONITOR_RING_PFN = 28  # xen/hvm/params.h
#: In the padding of the ring's header, which neither Xen nor the ring's macros read.
_MARK_OFFSET = 56
_U64 = struct.Struct("=Q")
_NOBODYS_BEAT = memoryview(bytearray(8))


class Watcher:
    """Who takes over if this process dies, and is told what happens to the domain before it happens.

    This one is nobody: the journal and ``xenintro rescue`` remain.
    """

    @property
    def beat(self) -> memoryview:
        """Eight bytes that the deadline thread writes its time to."""
        return _NOBODYS_BEAT

    @property
    def record(self) -> memoryview | None:
        """Memory for `xenintro.xen.ring.Ring.record`, where somebody reads that."""
        return None

    def taking(self, domid: int) -> None:
        """Nothing was done to the domain yet."""

    def attached(self, port: int, tag: int) -> None:
        """The ring exists: Xen's end of its event channel, and the `mark` on its page."""

    def watching(self) -> None:
        """Traps are on, the domain runs, and the deadline thread beats."""

    def turning(self) -> None:
        """The loop has come round."""

    def changing(self) -> None:
        """Something is about to be done to the domain, or undone; once more for each step that takes time."""

    def released(self) -> None:
        """Nothing is left to give back."""


class Keeper:
    """The page that will be the domain's monitor ring, mapped before there is a ring.

    Args:
        xc: an open libxc; closed with the keeper.
        domid: the domain, without a monitor.

    Attributes:
        address: of the page.

    Raises:
        XenintroError: the page cannot be mapped: at the domain's memory limit, for instance.
    """

    def __init__(self, xc: Xc, domid: int) -> None:
        self._xc = xc
        try:
            self._info = domain_info(xc, domid, named=False)
            self.address = _mapped(xc, domid)
        except BaseException:
            xc.close()
            raise

    def has(self, tag: int) -> bool:
        """Whether the ring with this `mark` was on this very page."""
        return marked(self.address) == tag

    def page(self) -> bytes:
        """A copy of the page."""
        return bytes(_page(self.address))

    def is_gone(self) -> bool:
        """Whether the domain was destroyed, and is held by who has its pages mapped."""
        return is_gone(self._xc, self._info)

    def close(self) -> None:
        """Unmap the page: a mapping keeps a dead domain from being freed."""
        self._xc.unmap_page(self.address)
        self._xc.close()


def _mapped(xc: Xc, domid: int) -> int:
    gfn = xc.hvm_param(domid, _HVM_PARAM_MONITOR_RING_PFN)
    try:
        return xc.map_page(domid, gfn)
    except XenintroError:
        # A monitor before has taken it out of the physmap; xc_monitor_enable would put a page there too.
        xc.populate(domid, gfn)
        return xc.map_page(domid, gfn)


def mark(address: int, tag: int) -> None:
    """Put a number on a ring page by which it is known again."""
    _U64.pack_into(_page(address), _MARK_OFFSET, tag)


def marked(address: int) -> int:
    """The number on a ring page."""
    tag: int = _U64.unpack_from(_page(address), _MARK_OFFSET)[0]
    return tag


def address_of(memory: memoryview) -> int:
    """Where memory of this process is, for the deadline thread; it must stay."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))


def _page(address: int) -> memoryview:
    return memoryview(ffi.buffer(ffi.cast("uint8_t *", address), 4096))
