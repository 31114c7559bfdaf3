"""Delivering traps: those that Xen took away from the guest to tell us about them, and others."""

from __future__ import annotations

import errno
import logging
from time import monotonic_ns
from typing import TYPE_CHECKING

from xenintro.events import DebugException
from xenintro.xen.failures import failure

if TYPE_CHECKING:
    from xenintro.events import Event
    from xenintro.response import Injection
    from xenintro.xen.guard import Guard, InjectTarget

_log = logging.getLogger(__name__)

#: What INT3 is for xc_hvm_inject_trap where the event does not say (before Xen 4.8).
SW_EXCEPTION = 6
INT3_LENGTH = 1


def inject(guard: Guard, target: InjectTarget, event: Event, injection: Injection | None) -> None:
    """Deliver a trap when the vCPU of the event that is answered next runs again.

    Where another injection is pending (EBUSY) INT3 is left alone: the instruction traps again afterwards.
    Another trap that cannot be delivered is lost, and said. Nothing is done where the deadline thread has
    answered.

    Args:
        guard: the deadline thread, which must not inject it again.
        target: with a handle of the loop's own.
        event: that is answered next.
        injection: the trap; None for the event's own.

    Raises:
        XenCallError: any other failure.
    """
    error = guard.inject(target, monotonic_ns(), injection)
    if error == errno.EBUSY:
        if injection is not None:
            lost = f"trap {injection.vector}"
        elif isinstance(event, DebugException):
            lost = "#DB"
        else:
            return
        _log.warning("vcpu %d lost a %s: another injection was pending", event.vcpu_id, lost)
    elif error:
        raise failure("xc_hvm_inject_trap", error, target.domid)
