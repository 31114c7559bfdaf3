"""What a dead monitor that kept no journal may have left: all that can be undone without knowing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.abi import CAPABILITIES, CTRLREGS
from xenintro.errors import NotSupportedError, XenintroError
from xenintro.traps import Trap
from xenintro.xen.arming import SWITCHES, has_singlestep
from xenintro.xen.preflight import page_permissions
from xenintro.xen.undo import AccessRequired, Pages, Steps, TrapOn, Views
from xenintro.xen.xc import NEW_PAGES

if TYPE_CHECKING:
    from xenintro.xen.domains import DomainInfo
    from xenintro.xen.undo import Change
    from xenintro.xen.xc import Xc

_HVM_PARAM_ALTP2M = 35  # xen/hvm/params.h
#: external, limited: nobody in the guest makes views.
_VIEWS_FROM_OUTSIDE = (2, 3)


def whatever_was_left(xc: Xc, info: DomainInfo) -> list[Change]:
    """The changes to undo in a domain of which nothing is known.

    Raises:
        XenintroError: Xen does not say what the domain can.
    """
    capabilities = xc.capabilities(info.domid)
    changes: list[Change] = [Steps(info.nr_vcpus)] if has_singlestep(capabilities) else []
    if xc.release < (4, 7):  # later ones forget their traps with the ring (b848dc83cc)
        changes += _every_trap(capabilities)
    if _has_views(xc, info.domid):
        changes.append(Views())
    try:
        page_permissions(xc, info.domid)
    except NotSupportedError:
        return changes
    pages = [Pages(NEW_PAGES, 0), Pages(0, xc.maximum_gpfn(info.domid) + 1)]
    return [*changes, AccessRequired(), *pages]


def _every_trap(capabilities: int) -> list[Change]:
    offered = [reason for reason in SWITCHES if capabilities >> CAPABILITIES.get(reason, 63) & 1]
    traps = [Trap(reason, reason) for reason in offered if reason != "write_ctrlreg"]
    traps += [Trap(name, "write_ctrlreg", index=index) for index, name in enumerate(CTRLREGS)]
    return [TrapOn(trap) for trap in traps]


def _has_views(xc: Xc, domid: int) -> bool:
    try:
        outside = xc.hvm_param(domid, _HVM_PARAM_ALTP2M) in _VIEWS_FROM_OUTSIDE
        return outside and xc.altp2m_state(domid)
    except XenintroError:
        return False  # this release or host has no views
