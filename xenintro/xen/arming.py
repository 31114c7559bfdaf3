"""Traps on and off: which libxc call each trap is."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xenintro.abi import CAPABILITIES
from xenintro.errors import NotSupportedError, XenCallError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.traps import Trap
    from xenintro.xen.xc import Xc

#: What is left allowed when some accesses trap. EPT has no write without read (Intel SDM 28.3.3.1: an
#: EPT misconfiguration), so trapping reads traps writes too; the loop drops what was not asked for.
_LEFT: Mapping[str, str] = {
    "r": "x",
    "w": "rx",
    "x": "rw",
    "rw": "x",
    "rx": "n",
    "wx": "r",
    "rwx": "n",
}

OPEN = "rwx"

#: The call that switches a trap, by reason.
SWITCHES: Mapping[str, Callable[[Xc, int, Trap, bool], None]] = {
    "write_ctrlreg": lambda xc, domid, trap, on: xc.write_ctrlreg(
        domid, trap.index, on, trap.sync, trap.mask, trap.onchange
    ),
    "mov_to_msr": lambda xc, domid, trap, on: xc.mov_to_msr(domid, trap.msr, on, trap.onchange),
    "cpuid": lambda xc, domid, _, on: xc.cpuid(domid, on),
    "guest_request": lambda xc, domid, trap, on: xc.guest_request(domid, on, trap.sync, trap.userspace),
    "debug_exception": lambda xc, domid, trap, on: xc.debug_exceptions(domid, on, trap.sync),
    "software_breakpoint": lambda xc, domid, _, on: xc.software_breakpoint(domid, on),
    "singlestep": lambda xc, domid, _, on: xc.singlestep(domid, on),
    "descriptor_access": lambda xc, domid, _, on: xc.descriptor_access(domid, on),
    "emul_unimplemented": lambda xc, domid, _, on: xc.emul_unimplemented(domid, on),
    "privileged_call": lambda xc, domid, _, on: xc.privileged_call(domid, on),
    "vmexit": lambda xc, domid, trap, on: xc.vmexit(domid, on, trap.sync),
    "mem_access": lambda xc, domid, trap, on: xc.set_mem_access(
        domid, _LEFT[trap.access] if on else OPEN, trap.first_gfn, trap.page_count
    ),
}


def arm(xc: Xc, domid: int, trap: Trap) -> None:
    """Switch a trap on. Interrupts need no call: they are asked for in responses.

    Raises:
        XenintroError: Xen refused; the text says why.
    """
    if trap.reason in SWITCHES:
        SWITCHES[trap.reason](xc, domid, trap, True)


def disarm(xc: Xc, domid: int, trap: Trap) -> None:
    """Switch a trap off, on or not.

    Raises:
        XenintroError: Xen refused; the text says why.
    """
    if trap.reason not in SWITCHES:
        return
    try:
        SWITCHES[trap.reason](xc, domid, trap, False)
    except NotSupportedError:
        pass  # what this host does not have is not on
    except XenCallError as error:
        # Its switching on failed: there is nothing to take back.
        if error.errno != errno.EEXIST:
            raise


def left_access(trap: Trap) -> str:
    """The permission that a mem_access trap leaves its pages."""
    return _LEFT[trap.access]


def has_singlestep(capabilities: int) -> bool:
    """Whether the CPU has the monitor trap flag."""
    return bool(capabilities >> CAPABILITIES["singlestep"] & 1)
