"""One domain: can it be watched, for what, and does somebody else?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.abi import CAPABILITIES
from xenintro.errors import XenintroError
from xenintro.xen.domctl import check_deny
from xenintro.xen.preflight import (
    check_domain,
    check_traps,
    helper_traps,
    page_permissions,
    ring_interface,
)
from xenintro.xen.probe.agent import agent
from xenintro.xen.probe.finding import Finding, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xenintro.traps import Trap
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.xc import Xc

_PARAM_ALTP2M = 35  # HVM_PARAM_ALTP2M (public/hvm/params.h)
_ALTP2M_MODES = {1: "mixed", 2: "external", 3: "limited"}


def findings(xc: Xc, choose: Callable[[Xc], int], traps: tuple[Trap, ...]) -> Iterator[Finding]:
    """What can be known of a domain without touching it."""
    try:
        domid = choose(xc)
        info = check_domain(xc, domid)
    except XenintroError as error:
        yield failed("domain", "domain", "domain", error)
        return
    paging = {True: ", hardware-assisted paging", False: ", shadow paging", None: ""}[info.hap]
    yield Finding(
        "domain", "domain", "ok", f"domain {domid}", f"{info.name or 'no name'}: HVM or PVH{paging}"
    )
    for examined in (_vcpus, _memory, _state):
        try:
            yield from examined(xc, info)
        except XenintroError as error:
            yield failed(examined.__name__[1:], "domain", examined.__name__[1:], error)
    try:
        yield from _abilities(xc, info)
        yield _deny(xc, domid)
        yield from _traps(xc, domid, traps)
    except XenintroError as error:
        yield failed("capabilities", "domain", "events", error)
        return
    yield from agent(xc, info)


def _vcpus(xc: Xc, info: DomainInfo) -> Iterator[Finding]:
    slots = ring_interface(xc).nr_slots
    detail = f"{info.nr_vcpus} for {slots} slots of the ring"
    if info.nr_vcpus <= slots:
        yield Finding("vcpus", "domain", "ok", "vCPUs", detail)
        return
    detail += ": some wait inside Xen when all trap at once, and a later rescue may not reach those"
    yield Finding("vcpus", "domain", "info", "vCPUs", detail, f"fewer is safer: at most {slots}")


def _memory(xc: Xc, info: DomainInfo) -> Iterator[Finding]:
    if info.tot_pages < info.max_pages:
        return
    detail = (
        f"all of its {info.max_pages} pages are in use: where the ring's page must be added, there is none"
    )
    fix = f"if attaching fails with EBUSY or ENOMEM: xl mem-max {info.domid} with more"
    yield Finding("memory", "domain", "info", "memory", detail, fix)


def _state(xc: Xc, info: DomainInfo) -> Iterator[Finding]:
    if info.paused:
        fix = f"nothing happens until: xl unpause {info.domid}"
        yield Finding("paused", "domain", "info", "state", "paused by the toolstack", fix)


def _abilities(xc: Xc, info: DomainInfo) -> Iterator[Finding]:
    bits = xc.capabilities(info.domid)
    names = [name for name, bit in CAPABILITIES.items() if bits >> bit & 1]
    yield Finding("capabilities", "domain", "ok", "events", ", ".join(names) or "none")
    try:
        page_permissions(xc, info.domid)
    except XenintroError as error:
        yield failed("mem-access", "domain", "mem_access", error, "warn")
        return
    yield Finding("mem-access", "domain", "ok", "mem_access", "page accesses can be trapped")
    yield _altp2m(xc, info.domid)


def _deny(xc: Xc, domid: int) -> Finding:
    try:
        check_deny(xc, domid)
    except XenintroError as error:  # watching needs no denial
        return failed("deny", "domain", "deny", error, "warn")
    detail = "writes of control registers and MSRs can be denied"
    return Finding("deny", "domain", "ok", "deny", detail)


def _altp2m(xc: Xc, domid: int) -> Finding:
    try:
        mode = xc.hvm_param(domid, _PARAM_ALTP2M)
    except XenintroError as error:  # watching needs no views
        return failed("altp2m", "domain", "altp2m", error, "info")
    if mode:
        detail = f"{_ALTP2M_MODES.get(mode, f'mode {mode}')}: views are available"
        return Finding("altp2m", "domain", "ok", "altp2m", detail)
    fix = 'set altp2m="external" in the domain\'s configuration and restart it'
    return Finding("altp2m", "domain", "info", "altp2m", "off: no views", fix)


def _traps(xc: Xc, domid: int, traps: tuple[Trap, ...]) -> Iterator[Finding]:
    """What ``watch`` would say of each, asked one by one."""
    bits = xc.capabilities(domid)
    for trap in traps:
        try:
            check_traps(xc, domid, (trap,), bits)
            if trap.reason == "interrupt":
                helper_traps(traps, bits)
        except XenintroError as error:
            yield failed("trap", "domain", f"-e {trap.text}", error)
        else:
            yield Finding("trap", "domain", "ok", f"-e {trap.text}", "can be trapped")
