"""``xenintro rescue``: give back a domain whose watcher died."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from xenintro.errors import DomainGoneError, NoSuchDomainError, ReleaseError
from xenintro_cli import options
from xenintro_cli.host import find_domain, open_xen
from xenintro_cli.output import say
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc


@click.command(name="rescue")
@options.domain
@click.option("--if-needed", is_flag=True, help="Do and say nothing where no watcher has died.")
@click.option("--force", is_flag=True, help="Even if its watcher seems to live.")
@options.xen
@options.talk
def command(
    domid: int | None, name: str | None, if_needed: bool, force: bool, selection: str, quiet: bool
) -> None:
    """Release a domain whose watcher died, be it xenintro or another.

    vCPUs that wait for an answer run again, traps, page permissions and single-stepping are taken back, and
    the ring goes. A domain that is watched is left alone. Doing it twice does no harm.

    \b
    Examples:
      xenintro rescue --domid 1
      xenintro rescue --name win10 --if-needed
    """  # noqa: D301 - click takes the backspace for a mark
    with open_xen(selection) as xc:
        try:
            line = _rescue(xc, find_domain(xc, domid, name), if_needed=if_needed, force=force)
        except (NoSuchDomainError, DomainGoneError):
            from xenintro.xen.forgetting import forget_the_gone

            forget_the_gone(xc)
            if not if_needed:
                raise
            return
    if line and not quiet:
        say(line, color=Style.of(sys.stderr).color)


def _rescue(xc: Xc, domid: int, *, if_needed: bool, force: bool) -> str:
    """What there is to say."""
    from xenintro.xen.domains import called, domain_info
    from xenintro.xen.rescue import needs_rescue, rescue
    from xenintro.xen.standstill import standing_still

    info = domain_info(xc, domid)
    needed = needs_rescue(xc, info, force=force)
    if if_needed and not needed:
        return ""
    waiting = standing_still(xc, info)
    done = rescue(xc, domid, force=force)
    _check_they_run(xc, info, waiting)
    if not needed:
        return f"{called(info)} needed no rescue: nothing was left over"
    vcpus = f"{len(waiting)} of {info.nr_vcpus} vCPUs stood still and run again; " if waiting else ""
    return f"{vcpus}{done}"


def _check_they_run(xc: Xc, info: DomainInfo, waiting: list[int]) -> None:
    from xenintro.xen.domains import called, domain_info
    from xenintro.xen.standstill import standing_still

    still = set(waiting) & set(standing_still(xc, domain_info(xc, info.domid)))
    if still:
        raise ReleaseError(
            f"{called(info)} was released, but does not run",
            why=f"vcpu {', '.join(map(str, sorted(still)))} could run, and does not",
            hint=f"what else holds it? see: xl list; xl vcpu-list {info.domid}",
        )
