"""The Xen releases of the lab: which Debian suite ships each, and what it speaks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One Xen as Debian ships it."""

    version: str
    suite: str
    abi: str  #: the interface id of its vm_event ring
    #: dom0's userland, oldest suite first: the newest C library of the two must win. Python is
    #: always bookworm's 3.11, which 4.14's own suite (3.9) does not have.
    layers: tuple[str, ...]
    has_xen_access: bool = True  #: Debian's xen-utils carry it from 4.17 on


RELEASES = {
    release.version: release
    for release in (
        Release("4.14", "bullseye", "vm_event-6", ("bullseye", "bookworm"), has_xen_access=False),
        Release("4.17", "bookworm", "vm_event-7", ("bookworm",)),
        Release("4.20", "trixie", "vm_event-7", ("bookworm", "trixie")),
    )
}

DEFAULT = "4.17"
