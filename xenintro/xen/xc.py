"""The calls of libxenctrl as one typed class: the same methods for every Xen release.

No C value leaves this package.
"""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING, Any, NamedTuple

from xenintro.errors import XenCallError
from xenintro.units import PAGE_SIZE, U64_MAX
from xenintro.xen import signatures, xenstore
from xenintro.xen.caller import Caller
from xenintro.xen.failures import failure
from xenintro.xen.library import Library
from xenintro.xen.locate import locate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self
#: `Xc.set_mem_access` of these "pages" sets what pages get that the guest has not used yet.
NEW_PAGES = U64_MAX

_XENVER_VERSION, _XENVER_EXTRAVERSION = 0, 1
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_SINGLE_STEP_OFF, _SINGLE_STEP_ON = 0, 1  # XEN_DOMCTL_DEBUG_OP_*
_GETDOMAININFO_ROOM = 1024  # bytes; the struct has 112 in 4.22 and only ever grew


class VcpuInfo(NamedTuple):
    """What Xen says about one vCPU (xc_vcpuinfo_t); `cpu_time_ns` grows while it runs."""

    online: bool
    blocked: bool
    running: bool
    cpu_time_ns: int
    cpu: int


def connect(selection: str = "auto") -> Xc:
    """Open libxc: of the running Xen (``auto``), or from a directory of libraries.

    Raises:
        NoXenError: no Xen here, not its control domain, or no permission.
        NotSupportedError: no libxenctrl for this release.
        UsageError: the directory is not one of a libxenctrl.
    """
    library, own_domid = libraries_of(selection)
    return Xc(library, own_domid=own_domid)


def libraries_of(selection: str = "auto") -> tuple[Library, int]:
    """What `connect` opens, for processes that open it more than once: the libraries, and the own domain.

    No handle is open yet, so that a process may fork afterwards.

    Raises:
        NoXenError, NotSupportedError, UsageError: see `connect`.
    """
    return Library(locate(selection)), xenstore.own_domid()


class Xc(Caller):
    """An open xc_interface.

    Every method that takes a domid raises NoSuchDomainError for a number that no domain can have
    and UsageError for the own domain, without calling Xen; and what `failures` makes of an errno.
    A call or an argument that this release lacks raises NotSupportedError.

    Args:
        library: the loaded calls.
        own_domid: the domain that this process runs in.

    Raises:
        NoXenError: the interface cannot be opened.
    """

    def __init__(self, library: Library, own_domid: int = 0) -> None:
        super().__init__(library, own_domid)
        self._msrs: dict[int, set[int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def has(self, call: str) -> bool:
        """Whether a call (``xc_monitor_io``) is available here."""
        return self.library.has(call)

    def missing(self, prefix: str = "") -> list[str]:
        """The calls (with this prefix) that are not available here, by name."""
        return self.library.missing(prefix)

    # The host

    def version(self) -> str:
        """The release of the running hypervisor with its suffix: ``4.17.7``."""
        number = self._plain("xc_version", _XENVER_VERSION, self._ffi.NULL)
        extra = self._ffi.new("char[]", PAGE_SIZE)
        self._plain("xc_version", _XENVER_EXTRAVERSION, extra)
        suffix = bytes(self._ffi.buffer(extra)).split(b"\0")[0].decode(errors="replace")
        return f"{number >> 16}.{number & 0xFFFF}{suffix}"

    def vm_event_version(self) -> int:
        """The interface version of the ring: asked from 4.13 on, before that known by release."""
        known = signatures.VM_EVENT_VERSION.get(self.release)
        return known if known is not None else self._plain("xc_vm_event_get_version")

    def getinfolist(self, first_domid: int) -> bytes | None:
        """The xc_domaininfo_t of the first domain whose number is at least this one, or None.

        Returns:
            1024 bytes; only the start is filled. Not every release fills the same length.
        """
        room = self._ffi.new("char[]", _GETDOMAININFO_ROOM)
        info = self._ffi.cast("xc_domaininfo_t *", room)
        found = self._plain("xc_domain_getinfolist", first_domid, 1, info)
        return bytes(self._ffi.buffer(room)) if found else None

    # One domain

    def pause(self, domid: int) -> None:
        """Pause every vCPU; counted by Xen, so that each pause needs its unpause."""
        self._domain("xc_domain_pause", domid)

    def unpause(self, domid: int) -> None:
        """Take back one `pause`."""
        self._domain("xc_domain_unpause", domid)

    def maximum_gpfn(self, domid: int) -> int:
        """The highest guest frame number in use."""
        return self._value("xc_domain_maximum_gpfn", domid, "xen_pfn_t *")

    def hvm_param(self, domid: int, param: int) -> int:
        """An HVM parameter (HVM_PARAM_*, xen/hvm/params.h): 64 bits."""
        return self._value("xc_hvm_param_get", domid, "uint64_t *", param)

    def populate(self, domid: int, gfn: int) -> None:
        """Put a page behind a gfn; what is on it is not defined.

        Raises:
            XenCallError: EBUSY: the domain is at its memory limit, or dying.
        """
        self._domain("xc_domain_populate_physmap_exact", domid, 1, 0, 0, self._ffi.new("xen_pfn_t *", gfn))

    def map_page(self, domid: int, gfn: int, protection: int = _READ_WRITE) -> int:
        """The address of a page of the domain in this process, to read and write unless asked otherwise.

        The mapping stays with the page, whatever becomes of the gfn; it ends with `unmap_page` or the
        process, no child inherits it, and while it is there a dead domain cannot be freed.

        Raises:
            XenCallError: EINVAL: there is no page behind the gfn.
        """
        page = self._raw("xc_map_foreign_range", domid, PAGE_SIZE, protection, gfn)
        if not page:
            raise failure("xc_map_foreign_range", self.library.errno, domid)
        return int(self._ffi.cast("uintptr_t", page))

    def vcpu_info(self, domid: int, vcpu_id: int) -> VcpuInfo:
        """The state of one vCPU; its domain pauses and vm_event pauses are not part of it."""
        info: Any = self._ffi.new("xc_vcpuinfo_t *")
        self._domain("xc_vcpu_getinfo", domid, vcpu_id, info)
        states = bool(info.online), bool(info.blocked), bool(info.running)
        return VcpuInfo(*states, info.cpu_time, info.cpu)

    def set_access_required(self, domid: int, required: bool) -> None:
        """Whether a page violation without a monitor crashes the guest; outlives the monitor."""
        self._domain("xc_domain_set_access_required", domid, int(required))

    def debug_control(self, domid: int, vcpu_id: int, single_step: bool) -> None:
        """Switch single-stepping of a vCPU by the Monitor Trap Flag (Intel only)."""
        operation = _SINGLE_STEP_ON if single_step else _SINGLE_STEP_OFF
        self._domain("xc_domain_debug_control", domid, operation, vcpu_id)

    def inject_trap(
        self,
        domid: int,
        vcpu_id: int,
        vector: int,
        type: int,
        error_code: int = 0xFFFFFFFF,
        insn_len: int = 0,
        extra: int = 0,
    ) -> None:
        """Inject a trap when the vCPU runs next.

        Args:
            domid: the domain.
            vcpu_id: the vCPU.
            vector: 0 to 255.
            type: X86_EVENTTYPE_*: 0 external, 2 NMI, 3 exception, 4 INT n, 5 INT1, 6 INT3.
            error_code: all ones for none.
            insn_len: bytes of the instruction of a software trap.
            extra: cr2 of a page fault, pending_dbg of a debug exception.
        """
        trap = (vector, type, error_code, insn_len, extra)
        self._domain("xc_hvm_inject_trap", domid, vcpu_id, *trap)

    # Monitor

    def monitor_enable(self, domid: int) -> tuple[int, int]:
        """Create the monitor ring and map it; the domain runs again when this returns.

        Returns:
            (address of the ring page in this process, event channel port of Xen's end).
            The page is not initialised.

        Raises:
            DomainBusyError: a ring exists. (Also a guest at its memory limit, rarely.)
        """
        port: Any = self._ffi.new("uint32_t *", 0)
        page = self._raw("xc_monitor_enable", domid, port)
        if not page:
            code = self.library.errno
            if port[0]:  # Xen made the ring and libxc failed afterwards: it leaves it enabled
                self._raw("xc_monitor_disable", domid)
            raise failure("xc_monitor_enable", code, domid)
        return int(self._ffi.cast("uintptr_t", page)), int(port[0])

    def monitor_disable(self, domid: int) -> None:
        """Remove the ring. vCPUs with unanswered requests stay paused for ever: answer first."""
        self._domain("xc_monitor_disable", domid)
        self._msrs.pop(domid, None)

    def monitor_resume(self, domid: int) -> None:
        """Let Xen consume the responses on the ring: what a notification does, without an event channel."""
        try:
            self._domain("xc_monitor_resume", domid)
        except XenCallError as error:
            if error.errno != errno.EINVAL:  # before 4.13 it says that whenever it has done it (b32c0446b1)
                raise

    def unmap_page(self, address: int) -> None:
        """Unmap a page that `monitor_enable` or `map_page` mapped; until then the domain cannot be freed."""
        if self.library.munmap(address, PAGE_SIZE) != 0:
            raise failure("munmap", self.library.errno)

    def capabilities(self, domid: int) -> int:
        """Which traps this CPU and domain offer: a bit per XEN_DOMCTL_MONITOR_EVENT_*."""
        return self._value("xc_monitor_get_capabilities", domid, "uint32_t *")

    def write_ctrlreg(
        self,
        domid: int,
        index: int,
        enable: bool,
        sync: bool,
        bitmask: int = 0,
        onchangeonly: bool = False,
    ) -> None:
        """Trap writes of a control register (index 0 CR0, 1 CR3, 2 CR4, 3 XCR0).

        A bitmask needs 4.10. Its set bits are ignored from 4.11 on; in 4.10 a change of any of
        them hides the event. From 4.11 on a write that changes nothing is never reported.
        """
        options = {"sync": sync, "bitmask": bitmask, "onchangeonly": onchangeonly}
        self._trap("xc_monitor_write_ctrlreg", domid, index=index, enable=enable, **options)

    def mov_to_msr(self, domid: int, msr: int, enable: bool, onchangeonly: bool = False) -> None:
        """Trap writes of one MSR; onchangeonly needs 4.11.

        Before 4.8 Xen has one switch for all the MSRs that it can trap (SYSENTER_*, STAR, LSTAR
        and those it intercepts anyway): it is on while any MSR is wanted, and writes of the other
        ones are reported too.
        """
        call = "xc_monitor_mov_to_msr"
        if "msr" in self.library.parameters(call):
            self._trap(call, domid, msr=msr, enable=enable, onchangeonly=onchangeonly)
            return
        wanted = self._msrs.setdefault(domid, set())
        switch = not (wanted if enable else wanted - {msr})
        if switch:
            options = {"extended_capture": True, "onchangeonly": onchangeonly}
            self._trap(call, domid, enable=enable, **options)
        wanted.add(msr) if enable else wanted.discard(msr)

    def singlestep(self, domid: int, enable: bool) -> None:
        """Report single steps (Intel only); stepping itself is switched per vCPU."""
        self._trap("xc_monitor_singlestep", domid, enable=enable)

    def software_breakpoint(self, domid: int, enable: bool) -> None:
        """Trap INT3."""
        self._trap("xc_monitor_software_breakpoint", domid, enable=enable)

    def guest_request(self, domid: int, enable: bool, sync: bool, allow_userspace: bool = False) -> None:
        """Report the guest's HVMOP_guest_request_vm_event; from user mode too needs 4.10."""
        options = {"sync": sync, "allow_userspace": allow_userspace}
        self._trap("xc_monitor_guest_request", domid, enable=enable, **options)

    def debug_exceptions(self, domid: int, enable: bool, sync: bool) -> None:
        """Trap #DB (4.8)."""
        self._trap("xc_monitor_debug_exceptions", domid, enable=enable, sync=sync)

    def cpuid(self, domid: int, enable: bool) -> None:
        """Trap CPUID (4.8)."""
        self._trap("xc_monitor_cpuid", domid, enable=enable)

    def privileged_call(self, domid: int, enable: bool) -> None:
        """Trap SMC (4.8, Arm)."""
        self._trap("xc_monitor_privileged_call", domid, enable=enable)

    def descriptor_access(self, domid: int, enable: bool) -> None:
        """Trap accesses of IDTR, GDTR, LDTR and TR (4.9)."""
        self._trap("xc_monitor_descriptor_access", domid, enable=enable)

    def emul_unimplemented(self, domid: int, enable: bool) -> None:
        """Report instructions that Xen cannot emulate (4.10)."""
        self._trap("xc_monitor_emul_unimplemented", domid, enable=enable)

    def inguest_pagefault(self, domid: int, disable: bool) -> None:
        """Do not report page violations of the guest's page-table walks (4.12)."""
        self._trap("xc_monitor_inguest_pagefault", domid, disable=disable)

    def vmexit(self, domid: int, enable: bool, sync: bool) -> None:
        """Report every VM exit (4.17; on AMD it never fires)."""
        self._trap("xc_monitor_vmexit", domid, enable=enable, sync=sync)

    def io(self, domid: int, enable: bool) -> None:
        """Trap IN and OUT (4.18)."""
        self._trap("xc_monitor_io", domid, enable=enable)

    # Page permissions

    def set_mem_access(self, domid: int, access: str | int, first_gfn: int, count: int = 1) -> None:
        """Set the permission of a range of pages; needs the ring, and an HVM guest with EPT.

        Args:
            domid: the domain.
            access: a name of `signatures.access_names` (``rw``), or this release's own number.
            first_gfn: the first page, or `NEW_PAGES` with a count of 0.
            count: how many; the last one is at most `maximum_gpfn`.
        """
        value = self._access(access)
        self._domain("xc_set_mem_access", domid, value, first_gfn, count)

    def set_mem_access_multi(self, domid: int, pages: Sequence[tuple[int, str | int]]) -> None:
        """Set the permissions of any pages, given as (gfn, access), in one call (4.8)."""
        access = self._ffi.new("uint8_t[]", [self._access(one) for _, one in pages])
        gfns = self._ffi.new("uint64_t[]", [gfn for gfn, _ in pages])
        self._domain("xc_set_mem_access_multi", domid, access, gfns, len(pages))

    def get_mem_access(self, domid: int, gfn: int) -> str:
        """The permission of a page by name; ``default`` never comes back."""
        value = self._value("xc_get_mem_access", domid, "xenmem_access_t *", gfn)
        return signatures.access_names(self.release)[value]

    # altp2m views

    def altp2m_state(self, domid: int) -> bool:
        """Whether altp2m is switched on for the domain."""
        return bool(self._value("xc_altp2m_get_domain_state", domid, "bool *"))

    def set_altp2m_state(self, domid: int, on: bool) -> None:
        """Switch altp2m; off destroys all views."""
        self._domain("xc_altp2m_set_domain_state", domid, on)

    def create_view(self, domid: int, default_access: str | int = "default") -> int:
        """Make a view and return its index, which is never 0."""
        access = self._access(default_access)
        return self._value("xc_altp2m_create_view", domid, "uint16_t *", access)

    def destroy_view(self, domid: int, view: int) -> None:
        """Remove a view that no vCPU uses."""
        self._domain("xc_altp2m_destroy_view", domid, view)

    def switch_to_view(self, domid: int, view: int) -> None:
        """Run all vCPUs in this view; 0 is the plain guest."""
        self._domain("xc_altp2m_switch_to_view", domid, view)

    def set_view_access(self, domid: int, view: int, gfn: int, access: str | int) -> None:
        """Set the permission of one page in one view."""
        self._domain("xc_altp2m_set_mem_access", domid, view, gfn, self._access(access))

    def change_gfn(self, domid: int, view: int, old_gfn: int, new_gfn: int) -> None:
        """Let a page of a view show another page's contents; all ones undoes it."""
        self._domain("xc_altp2m_change_gfn", domid, view, old_gfn, new_gfn)
