"""Which domain has the name or UUID now: it changes its number with every start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.xen.domains import list_domains
from xenintro.xen.xenstore import DOMAIN_GONE, DOMAIN_MADE, XenStore

if TYPE_CHECKING:
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc


class Finder:
    """Looks for one domain.

    Args:
        xc: an open libxc.
        name: its name or UUID.
    """

    def __init__(self, xc: Xc, name: str) -> None:
        self._xc = xc
        self._name = name
        self._store = _watching()

    @property
    def fds(self) -> list[int]:
        """What becomes readable when domains come or go; empty where xenstore does not say."""
        fd = self._store.fileno()
        return [] if fd is None else [fd]

    def find(self) -> DomainInfo | None:
        """The domain, if it is built and not on its way out.

        A rebooting domain is there twice for a while. One that the toolstack still builds must be left
        alone: libxc would take page 0 for its ring, as the real place is not known yet.
        """
        if self._store.fileno() is None:
            self._store = _watching()
        for info in list_domains(self._xc):
            here = self._name in (info.name, info.uuid) and not info.dying and not info.shutdown
            if here and self._store.introduced(info.domid) is not False:
                return info
        return None

    def changed(self) -> bool:
        """Whether domains came or went since this was asked before."""
        return bool(self._store.events())

    def close(self) -> None:
        """Close the connection to xenstore."""
        self._store.close()


def _watching() -> XenStore:
    store = XenStore()
    for node in (DOMAIN_MADE, DOMAIN_GONE):
        store.watch(node)
    return store
