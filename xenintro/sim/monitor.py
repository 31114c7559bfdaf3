"""Which traps are armed for a domain, and which of them a release has (asm/monitor.h, arch/x86/monitor.c)."""

from __future__ import annotations

import errno
from typing import NamedTuple

from xenintro.abi import CAPABILITIES

Release = tuple[int, int]

# MSRs that Xen 4.6 and 4.7 intercept only with extended_capture: SYSENTER_*, STAR, LSTAR, MC0_CTL.
_EXTENDED = frozenset({0x174, 0x175, 0x176, 0xC0000081, 0xC0000082, 0x400})
_NEVER_BEFORE_4_8 = frozenset({0xC0000100, 0xC0000101, 0xC0000102})

#: Ranges of the MSR bitmap (monitor_bitmap_for_msr, 4.8 on).
_MSR_RANGES = (range(0x2000), range(0x40000000, 0x40002000), range(0xC0000000, 0xC0002000))

#: First release that reports each capability, for VMX.
_SINCE: dict[str, Release] = {
    "write_ctrlreg": (4, 6),
    "mov_to_msr": (4, 6),
    "singlestep": (4, 6),
    "software_breakpoint": (4, 6),
    "guest_request": (4, 6),
    "debug_exception": (4, 8),
    "cpuid": (4, 8),
    "interrupt": (4, 9),
    "descriptor_access": (4, 9),
    "emul_unimplemented": (4, 10),
    "inguest_pagefault": (4, 12),
    "vmexit": (4, 17),
    "io_instruction": (4, 18),
}

#: What AMD lacks: there is no monitor trap flag; EMUL_UNIMPLEMENTED came in 4.12.
_AMD_SINCE: Release = (4, 11)
_VMX_ONLY: dict[str, Release] = {"singlestep": (9, 9), "emul_unimplemented": (4, 12)}


def capabilities(release: Release, vendor: str, hvm: bool) -> int:
    """arch_monitor_get_capabilities: bits of XEN_DOMCTL_MONITOR_EVENT_*."""
    if not hvm or (vendor == "amd" and release < _AMD_SINCE):
        return 0
    return sum(
        1 << CAPABILITIES[name]
        for name, since in _SINCE.items()
        if release >= since and not (vendor == "amd" and release < _VMX_ONLY.get(name, _AMD_SINCE))
    )


class Quirks(NamedTuple):
    """What changed between releases in how events are posted.

    Attributes:
        without_ring: what monitor_traps returns when there is no ring.
        asynchronous: what it returns for an asynchronous event.
    """

    release: Release
    without_ring: int
    asynchronous: int

    @classmethod
    def of(cls, release: Release) -> Quirks:
        """The ways of one release."""
        if release <= (4, 7):
            return cls(release, 1, 1)  # vm_event_monitor_traps always says 1
        if (4, 10) <= release <= (4, 12):
            return cls(release, -errno.EOPNOTSUPP, 0)  # callers test -ENOSYS: 81646cea82 (4.13)
        return cls(release, 0, 0)

    def defers_ctrlreg(self, rc: int, monitor: Monitor) -> bool:
        """Whether a reported write waits for the vCPU's next turn (where DENY can cancel it)."""
        return rc >= 0 and (self.release <= (4, 13) or monitor.control_register_values)

    def defers_msr(self, rc: int, monitor: Monitor) -> bool:
        """The same for an MSR; up to 4.13 whether or not the write was reported."""
        if self.release <= (4, 13):
            return True
        return rc >= 0 and monitor.control_register_values


class Monitor:
    """d->arch.monitor and d->monitor: zeroed when the ring is disabled, from 4.7 on.

    The switches are named after the reasons.
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self.singlestep = False
        self.software_breakpoint = False
        self.guest_request = False
        self.guest_request_sync = False
        self.debug_exception = False
        self.debug_exception_sync = False
        self.cpuid = False
        self.descriptor_access = False
        self.emul_unimplemented = False
        self.inguest_pagefault_disabled = False
        self.vmexit = False
        self.vmexit_sync = False
        self.io = False
        self.control_register_values = False
        #: By index: (sync, onchangeonly, bitmask).
        self.ctrlregs: dict[int, tuple[bool, bool, int]] = {}
        #: By MSR: onchangeonly. Up to 4.7 there is only `all_msrs`: (enabled, extended).
        self.msrs: dict[int, bool] = {}
        self.all_msrs = (False, False)

    def armed(self) -> list[str]:
        """Names of the traps that are on."""
        switches = [
            *("singlestep", "software_breakpoint", "guest_request", "debug_exception", "cpuid"),
            *("descriptor_access", "emul_unimplemented", "vmexit", "io"),
        ]
        names = [name for name in switches if getattr(self, name)]
        names += [f"write_ctrlreg {index}" for index in self.ctrlregs]
        names += [f"mov_to_msr {msr:#x}" for msr in self.msrs]
        if self.all_msrs[0]:
            names.append("mov_to_msr")
        return names

    def writes_ctrlreg(self, index: int) -> bool:
        """Whether the register is watched at all."""
        return index in self.ctrlregs

    def ctrlreg_sync(self, index: int) -> bool:
        """Whether its events pause the vCPU."""
        return self.ctrlregs[index][0]

    def reports_ctrlreg(self, index: int, old: int, new: int) -> bool:
        """hvm_monitor_cr's condition."""
        if index not in self.ctrlregs:
            return False
        _, onchangeonly, mask = self.ctrlregs[index]
        if onchangeonly and old == new:
            return False
        if self._release >= (4, 11):  # 24470b99c1
            return bool((new ^ old) & ~mask)
        if self._release == (4, 10):
            return not (new ^ old) & mask
        return True

    def watches_msr(self, msr: int) -> bool:
        """Whether writes to this MSR are trapped."""
        if self._release >= (4, 8):
            return msr in self.msrs
        enabled, extended = self.all_msrs
        if not enabled or msr in _NEVER_BEFORE_4_8:
            return False
        return extended or msr not in _EXTENDED

    def msr_onchangeonly(self, msr: int) -> bool:
        """Whether only changes are reported (4.11 on)."""
        return self._release >= (4, 11) and self.msrs.get(msr, False)

    @staticmethod
    def valid_msr(msr: int) -> bool:
        """Whether the bitmap has a bit for it."""
        return any(msr in numbers for numbers in _MSR_RANGES)
