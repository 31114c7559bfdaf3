"""monitor_traps: a vCPU puts a request on the ring, and sleeps if there is no room (common/monitor.c)."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from xenintro.abi import Flag
from xenintro.sim.ring import Request

if TYPE_CHECKING:
    from collections.abc import Generator

    from xenintro.sim.vcpu import Vcpu

_PAUSED, _ALTP2M = int(Flag.VCPU_PAUSED), int(Flag.ALTERNATE_P2M)


def traps(vcpu: Vcpu, sync: bool, reason: str, values: dict[str, Any]) -> Generator[None, None, int]:
    """Post an event.

    Returns:
        What monitor_traps returns in this release: 1 if the vCPU was paused, 0 to carry on, negative
        for an error.
    """
    domain = vcpu.domain
    while True:
        ring = domain.ring
        if ring is None:
            return domain.quirks.without_ring
        if ring.free > 0:
            break
        vcpu.waiting = True
        ring.waiting.append(vcpu)
        yield
    flags = 0
    if sync:
        flags = _PAUSED
        vcpu.event_pauses += 1
    view = 0
    if domain.altp2m and (domain.machine.release >= (4, 7) or reason == "mem_access"):
        flags |= _ALTP2M
        view = vcpu.view
    vcpu.looping(reason)
    header = (flags, vcpu.vcpu_id, view)
    raw = domain.machine.writer.write(reason, header, values, vcpu.regs)
    domain.machine.posted(domain, ring, reason)
    ring.put(vcpu, Request(reason, sync, raw, monotonic_ns()))
    return 1 if sync else domain.quirks.asynchronous


def vmexit(vcpu: Vcpu, reason: int) -> Generator[None, None, bool]:
    """hvm_monitor_vmexit (4.17): before Xen looks at the exit. True: it will not handle it."""
    monitor = vcpu.domain.monitor
    if not monitor.vmexit or vcpu.bypass:
        return False
    values = {"reason": reason, "qualification": 0}
    rc = yield from traps(vcpu, monitor.vmexit_sync, "vmexit", values)
    if rc < 0:
        vcpu.domain.crash()
    return rc != 0
