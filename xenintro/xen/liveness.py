"""Who watches a domain: a process with a page of a guest mapped and an event channel open."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xenintro.errors import DomainBusyError, XenintroError
from xenintro.xen.domains import called
from xenintro.xen.evtchn import EventChannel
from xenintro.xen.preflight import ring_in_use
from xenintro.xen.statedir import holder, state_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc

_PROC = Path("/proc")
_SIMULATOR = "XENINTRO_SIM_SOCKET"

#: Processes of every host that map guests' pages and are no monitors (comm, at most 15 bytes).
_DAEMONS = (
    *(
        "xenstored",
        "oxenstored",
        "xenconsoled",
        "xenpaging",
        "xenbackendd",
        "xenpm",
        "xentop",
        "xl",
        "libxl*",
    ),
    *("qemu*", "xenopsd*", "xcp-*", "squeezed", "libvirtd", "virtxend", "tapdisk*", "varstored", "vncterm"),
    *("domain 0 qemu*", "stubdom*", "demu", "vgpu*", "xenguest", "init-xenstore*"),
)


class Process(NamedTuple):
    """A process by number and name."""

    pid: int
    name: str


def check_nobody_watches(xc: Xc, info: DomainInfo, port: int | None = None) -> None:
    """Pass if the domain has no ring, or nobody who could own it lives.

    A ring of ours is known by its event channel, which is free when its monitor is dead. Of others Linux does
    not tell whose pages they have mapped: who watches another domain is taken for the owner too, unless it
    is a xenintro.

    Args:
        xc: an open libxc.
        info: the domain.
        port: Xen's end of the event channel of a ring that we had.

    Raises:
        DomainBusyError: names the process.
    """
    if ring_in_use(xc, info.domid) is False:
        return
    if port is not None and _is_free(xc, info.domid, port):
        return
    owner = next(_monitors(info.domid), None)
    if owner is not None:
        raise DomainBusyError(
            f"{called(info)} seems to be watched",
            why=f"it has a monitor ring, and {owner.name} (process {owner.pid}) looks like a monitor",
            hint=f"end it; if it watches another domain: xenintro rescue --domid {info.domid} --force",
        )


def _is_free(xc: Xc, domid: int, port: int) -> bool:
    try:
        with EventChannel(xc.library) as channel:
            channel.bind(domid, port)
    except XenintroError:
        return False
    return True


def _monitors(domid: int) -> Iterator[Process]:
    """Processes that could have the domain's ring."""
    known = {os.getpid(), *filter(None, map(holder, state_files()))}
    simulator = os.environ.get(_SIMULATOR)
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal() or int(entry.name) in known:
            continue
        try:
            name = (entry / "comm").read_text().strip()
            if any(fnmatchcase(name, pattern) for pattern in _DAEMONS):
                continue
            if _simulator_of(entry) == simulator and _maps_a_ring(entry, domid, simulated=bool(simulator)):
                yield Process(int(entry.name), name)
        except OSError:
            continue  # it ended meanwhile, or is none of ours to look at


def _simulator_of(process: Path) -> str | None:
    """The simulator that a process meets, None if it meets the host's Xen."""
    prefix = f"{_SIMULATOR}=".encode()
    variables = (process / "environ").read_bytes().split(b"\0")
    return next((v.removeprefix(prefix).decode() for v in variables if v.startswith(prefix)), None)


def _maps_a_ring(process: Path, domid: int, *, simulated: bool) -> bool:
    maps = (process / "maps").read_text(errors="replace")
    if simulated:
        return f"memfd:xenintro-guest-{domid} " in maps
    return "/dev/xen/privcmd" in maps and any(
        (descriptor.readlink().name == "evtchn") for descriptor in (process / "fd").iterdir()
    )
