"""Delivering a trap that Xen took away from the guest to tell us about it."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from xenintro.abi.constants import NO_ERROR_CODE, TRAP_DEBUG, TRAP_INT3
from xenintro.errors import XenCallError
from xenintro.events import DebugException, SoftwareBreakpoint

if TYPE_CHECKING:
    from xenintro.events import Event
    from xenintro.xen.xc import Xc

_log = logging.getLogger(__name__)

#: What INT3 is for xc_hvm_inject_trap where the event does not say (before Xen 4.8).
SW_EXCEPTION = 6
INT3_LENGTH = 1


def reinject(xc: Xc, domid: int, event: Event) -> None:
    """Deliver the INT3 or #DB of an event when its vCPU runs again.

    Where another injection is pending (EBUSY) INT3 is left alone: the instruction traps again afterwards.
    A #DB that cannot be delivered is lost, and said.

    Raises:
        XenCallError: any other failure.
    """
    assert isinstance(event, SoftwareBreakpoint | DebugException)
    vector = TRAP_INT3 if isinstance(event, SoftwareBreakpoint) else TRAP_DEBUG
    trap = {
        "vector": vector,
        "type": SW_EXCEPTION if event.type is None else event.type,
        "error_code": NO_ERROR_CODE,
        "insn_len": INT3_LENGTH if event.insn_length is None else event.insn_length,
        "extra": (event.pending_dbg or 0) if vector == TRAP_DEBUG else 0,
    }
    try:
        xc.inject_trap(domid, event.vcpu_id, **trap)
    except XenCallError as error:
        if error.errno != errno.EBUSY:
            raise
        if vector == TRAP_DEBUG:
            _log.warning("vcpu %d lost a #DB: another injection was pending", event.vcpu_id)
