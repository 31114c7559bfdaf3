"""Which Xen a verb talks to, and which of its domains."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xenintro.errors import NoSuchDomainError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.xc import Xc


@contextmanager
def libraries(selection: str, pace: int | None = None) -> Iterator[str]:
    """The libraries to load, for `xenintro.xen.locate`; a simulator lives as long as the context.

    ``pace`` is that of the simulated guest, see `xenintro.sim.launch.Simulation`.
    """
    if selection != "sim":
        yield selection
        return
    from xenintro.sim.launch import Simulation

    with Simulation(pace=pace) as simulation:
        os.environ.update(simulation.environment)
        yield str(simulation.directory)


@contextmanager
def open_xen(selection: str, pace: int | None = None) -> Iterator[Xc]:
    """Open the chosen Xen.

    Raises:
        NoXenError: no Xen here, not the control domain, or no permission.
        NotSupportedError: this installation has no native parts, or no library fits the hypervisor.
    """
    from xenintro.xen.xc import connect

    with libraries(selection, pace) as directory, connect(directory) as xc:
        yield xc


def check_one_domain(domid: int | None, name: str | None) -> None:
    """Pass if one domain is asked for.

    Raises:
        UsageError: neither or both of ``--domid`` and ``--name`` were given.
    """
    if (domid is None) == (name is None):
        raise UsageError(
            "no domain is named" if domid is None else "--domid and --name are both given",
            why="give one of them: --domid N or --name NAME",
            hint="see them all: xenintro list",
        )


def find_domain(xc: Xc, domid: int | None, name: str | None) -> int:
    """The domid behind ``--domid`` or ``--name``.

    Raises:
        UsageError: neither or both were given.
        NoSuchDomainError: no domain has that name or UUID.
    """
    check_one_domain(domid, name)
    if domid is not None:
        return domid
    from xenintro.xen.domains import list_domains

    for info in list_domains(xc):
        if name in (info.name, info.uuid):
            return info.domid
    raise NoSuchDomainError(
        f"no domain is called {name!r}", why="neither name nor UUID matches", hint="see: xenintro list"
    )
