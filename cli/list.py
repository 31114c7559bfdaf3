"""``xenintro list``: the domains of the host, and whether they can be watched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xenintro.sinks import jsonl
from xenintro.units import PAGE_SIZE
from xenintro_cli import options
from xenintro_cli.host import open_xen
from xenintro_cli.output import write, write_lines

if TYPE_CHECKING:
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc


@click.command(name="list")
@options.output_format
@options.xen
def command(output_format: str, selection: str) -> None:
    """List the domains of this host, and say of each whether it can be watched."""
    from xenintro.xen.domains import list_domains

    with open_xen(selection) as xc:
        domains = [(info, _why_not(xc, info)) for info in list_domains(xc)]
    if output_format == "jsonl":
        write(b"".join(jsonl.line(_record(info, why_not)) for info, why_not in domains))
        return
    row = "{:>5}  {:<20}  {:<4}  {:>5}  {:>10}  {:<9}  {}"
    lines = [row.format("domid", "name", "type", "vcpus", "memory", "state", "watch")]
    lines += [row.format(*_cells(info, why_not)) for info, why_not in domains]
    write_lines([line.rstrip() for line in lines])


def _cells(info: DomainInfo, why_not: str | None) -> tuple[str, ...]:
    return (
        str(info.domid),
        info.name or "-",
        "hvm" if info.hvm else "pv",
        str(info.nr_vcpus),
        f"{info.tot_pages * PAGE_SIZE / 2**20:.0f} MiB",
        _state(info),
        f"no: {why_not}" if why_not else "yes",
    )


def _record(info: DomainInfo, why_not: str | None) -> dict[str, Any]:
    return {
        "v": 1,
        "domid": info.domid,
        "domain": info.name,
        "uuid": info.uuid,
        "type": "hvm" if info.hvm else "pv",
        "vcpus": info.nr_vcpus,
        "memory_bytes": info.tot_pages * PAGE_SIZE,
        "state": _state(info),
        "watchable": why_not is None,
        "why_not": why_not,
    }


def _state(info: DomainInfo) -> str:
    for state, holds in (("dying", info.dying), ("shutdown", info.shutdown), ("paused", info.paused)):
        if holds:
            return state
    return "running"


def _why_not(xc: Xc, info: DomainInfo) -> str | None:
    """Why a domain cannot be watched now, None if it can."""
    from xenintro.xen.preflight import ring_in_use

    if info.domid == xc.own_domid:
        return "the control domain"
    if not info.hvm:
        return "PV has no vm_events"
    if info.dying:
        return "it is going away"
    return "another agent is attached, or died attached" if ring_in_use(xc, info.domid) else None
