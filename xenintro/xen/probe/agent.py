"""Who else watches a domain, and what dead monitors left."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xenintro.xen.failures import failure
from xenintro.xen.probe.finding import Finding, failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.domains import DomainInfo


def agent(info: DomainInfo, ring: bool | None, still: list[int]) -> Iterator[Finding]:
    """The findings about other agents.

    Args:
        info: the domain.
        ring: whether it has a monitor ring, None if Xen does not tell.
        still: vCPUs that could run and do not.
    """
    if ring:
        error = failure("xc_monitor_enable", errno.EBUSY, info.domid)
        yield failed("ring", "domain", "other agent", error)
    elif ring is None:
        yield Finding("ring", "domain", "info", "other agent", "this release does not tell")
    else:
        yield Finding("ring", "domain", "ok", "other agent", "none")
    if still:
        vcpus = f"vcpu {', '.join(map(str, still))}"
        yield Finding(
            *(
                "standing-still",
                "domain",
                "warn",
                vcpus,
                "stands still, as if waiting for an answer nobody gives",
            ),
            fix=f"xenintro rescue --domid {info.domid}",
        )
