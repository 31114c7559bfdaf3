"""Traps on and off: which libxc call each trap is, and whether this host can do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.abi import CAPABILITIES
from xenintro.errors import NotSupportedError

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

_SWITCHES: Mapping[str, Callable[[Xc, int, Trap, bool], None]] = {
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


def switch(xc: Xc, domid: int, trap: Trap, on: bool) -> None:
    """Arm or disarm one trap. Interrupt traps need no call: they are asked for in responses.

    Raises:
        XenintroError: Xen refused; the text says why.
    """
    if trap.reason in _SWITCHES:
        _SWITCHES[trap.reason](xc, domid, trap, on)


def left_access(trap: Trap) -> str:
    """The permission that a mem_access trap leaves its pages."""
    return _LEFT[trap.access]


def check_capabilities(capabilities: int, traps: tuple[Trap, ...]) -> None:
    """Refuse what this CPU, domain or release cannot trap; mem_access has no capability bit.

    Raises:
        NotSupportedError: names the trap and the likely reason.
    """
    for trap in traps:
        bit = CAPABILITIES.get(trap.reason)
        missing = bit is not None and not capabilities >> bit & 1
        needs_step = trap.step and not has_singlestep(capabilities)
        if missing or needs_step:
            raise NotSupportedError(
                f"this host cannot trap {trap.text}",
                why=_WHY.get("singlestep" if needs_step else trap.reason, "Xen does not offer it here")
                + f" (capabilities {capabilities:#x})",
                hint="see what it can: xenintro doctor --domid N",
            )


def has_singlestep(capabilities: int) -> bool:
    """Whether the CPU has the monitor trap flag."""
    return bool(capabilities >> CAPABILITIES["singlestep"] & 1)


_WHY: Mapping[str, str] = {
    "singlestep": "single-stepping needs the monitor trap flag, which only Intel CPUs have",
    "privileged_call": "privileged calls exist on Arm only",
    "vmexit": "VM exits can be trapped from Xen 4.17 on",
    "descriptor_access": "descriptor accesses can be trapped from Xen 4.9 on, if the CPU can",
}
