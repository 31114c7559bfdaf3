"""Who else watches a domain, and what dead monitors left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import XenintroError
from xenintro.xen.occupied import check_unoccupied
from xenintro.xen.probe.finding import Finding, failed
from xenintro.xen.standstill import standing_still

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc


def agent(xc: Xc, info: DomainInfo) -> Iterator[Finding]:
    """The findings about other agents of a domain."""
    try:
        known = check_unoccupied(xc, info)
    except XenintroError as error:
        yield failed("ring", "domain", "other agent", error)
    else:
        level, detail = ("ok", "none") if known else ("info", "none of ours; this release tells of no other")
        yield Finding("ring", "domain", level, "other agent", detail)
    still = standing_still(xc, info)
    if still:
        detail = "stands still, as if waiting for an answer that nobody gives"
        fix = f"if its monitor is dead: xenintro rescue --domid {info.domid}"
        yield Finding("standing-still", "domain", "warn", f"vcpu {', '.join(map(str, still))}", detail, fix)
