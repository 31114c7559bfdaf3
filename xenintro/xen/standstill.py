"""vCPUs that wait for an answer nobody gives: Xen does not tell how often a vCPU is paused for events."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING

from xenintro.errors import XenintroError

if TYPE_CHECKING:
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import VcpuInfo, Xc

#: How long a vCPU that could run must not have run to be called standing still: many times the
#: slice of Xen's schedulers, and longer than a device model takes.
_STILL_SECONDS = 0.3
_STILL_STEP = 0.02


def standing_still(xc: Xc, info: DomainInfo) -> list[int]:
    """The vCPUs that could run, and do not: vm_event pauses cannot be read back from Xen."""
    if info.paused:
        return []
    first = {vcpu_id: seen for vcpu_id in range(info.nr_vcpus) if (seen := _idle(xc, info.domid, vcpu_id))}
    suspects = dict(first)
    end = monotonic() + _STILL_SECONDS
    while suspects and monotonic() < end:
        sleep(_STILL_STEP)
        suspects = {
            vcpu_id: seen for vcpu_id, seen in suspects.items() if _idle(xc, info.domid, vcpu_id) == seen
        }
    return list(suspects)


def _idle(xc: Xc, domid: int, vcpu_id: int) -> VcpuInfo | None:
    """A vCPU that is neither running nor waiting for an interrupt; None for any other."""
    try:
        seen = xc.vcpu_info(domid, vcpu_id)
    except XenintroError:
        return None  # a number that no vCPU has
    return seen if seen.online and not seen.blocked and not seen.running else None
