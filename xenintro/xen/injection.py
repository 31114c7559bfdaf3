"""Delivering a trap that Xen took away from the guest to tell us about it."""

from __future__ import annotations

import errno
import logging
from time import monotonic_ns
from typing import TYPE_CHECKING

from xenintro.events import DebugException
from xenintro.xen.failures import failure

if TYPE_CHECKING:
    from xenintro.events import Event
    from xenintro.xen.guard import Guard, InjectTarget

_log = logging.getLogger(__name__)

#: What INT3 is for xc_hvm_inject_trap where the event does not say (before Xen 4.8).
SW_EXCEPTION = 6
INT3_LENGTH = 1


def reinject(guard: Guard, target: InjectTarget, event: Event) -> None:
    """Deliver the INT3 or #DB of the event that is answered next when its vCPU runs again.

    Where another injection is pending (EBUSY) INT3 is left alone: the instruction traps again afterwards.
    A #DB that cannot be delivered is lost, and said. Nothing is done where the deadline thread has answered.

    Raises:
        XenCallError: any other failure.
    """
    error = guard.inject(target, monotonic_ns())
    if error == errno.EBUSY:
        if isinstance(event, DebugException):
            _log.warning("vcpu %d lost a #DB: another injection was pending", event.vcpu_id)
    elif error:
        raise failure("xc_hvm_inject_trap", error, target.domid)
