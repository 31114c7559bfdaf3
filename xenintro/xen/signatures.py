"""What differs between Xen releases for a caller of libxc: data and its lookup.

A row of calls is a range of releases and the prototype of that range, from the headers of each minor
release (xenctrl.h, xenctrl_compat.h, xenevtchn.h, xenforeignmemory.h, xencall.h,
xendevicemodel.h, xentoollog.h). libxenctrl has no stable ABI, so the same name can have several
rows. ``name = prototype`` is an alias: before 4.7 the event channel calls lived in libxenctrl.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

Release: TypeAlias = tuple[int, int]

OLDEST: Release = (4, 6)
NEWEST: Release = (4, 22)

#: What the Xen headers call these types; ``arg_domid_t`` is ours, see `_ARG_DOMID`.
#: xen_pfn_t is uint64_t on Arm: the same on every 64-bit host.
_TYPES = """
typedef uint16_t domid_t;
typedef uint32_t evtchn_port_t;
typedef unsigned long xen_pfn_t;
typedef unsigned int xenmem_access_t;
typedef unsigned int xentoollog_level;
typedef struct xentoollog_logger xentoollog_logger;
typedef struct xentoollog_logger_stdiostream xentoollog_logger_stdiostream;
typedef struct xc_interface_core xc_interface;
typedef struct xc_evtchn xc_evtchn;
typedef struct xenevtchn_handle xenevtchn_handle;
typedef struct xenforeignmemory_handle xenforeignmemory_handle;
typedef struct xencall_handle xencall_handle;
typedef struct xendevicemodel_handle xendevicemodel_handle;
typedef struct xen_domctl_getdomaininfo xc_domaininfo_t;
typedef struct xen_domctl_getvcpuinfo {
    uint32_t vcpu;
    uint8_t online, blocked, running;
    uint64_t cpu_time;
    uint32_t cpu;
} xc_vcpuinfo_t;
"""

#: Xen commit 5b42c82f55 (4.10) widened the domid of nearly every libxc call.
_ARG_DOMID: tuple[tuple[Release, str], ...] = (((4, 6), "uint16_t"), ((4, 10), "uint32_t"))

_ROWS = """
4.6-      xentoollog_logger_stdiostream *xtl_createlogger_stdiostream(FILE *f,
            xentoollog_level min_level, unsigned flags)
4.6-      void xtl_logger_destroy(struct xentoollog_logger *logger)

4.6-      xc_interface *xc_interface_open(xentoollog_logger *logger,
            xentoollog_logger *dombuild_logger, unsigned open_flags)
4.6-      int xc_interface_close(xc_interface *xch)
4.6-      int xc_version(xc_interface *xch, int cmd, void *arg)
4.13-     int xc_vm_event_get_version(xc_interface *xch)

4.6-      int xc_domain_pause(xc_interface *xch, uint32_t domid)
4.6-      int xc_domain_unpause(xc_interface *xch, uint32_t domid)
4.6-      int xc_domain_getinfolist(xc_interface *xch, uint32_t first_domain,
            unsigned int max_domains, xc_domaininfo_t *info)
4.6-      int xc_domain_maximum_gpfn(xc_interface *xch, arg_domid_t domid, xen_pfn_t *gpfns)
4.6-      int xc_domain_populate_physmap_exact(xc_interface *xch, uint32_t domid,
            unsigned long nr_extents, unsigned int extent_order, unsigned int mem_flags,
            xen_pfn_t *extent_start)
4.6-      void *xc_map_foreign_range(xc_interface *xch, uint32_t dom, int size, int prot,
            unsigned long mfn)
4.6-      int xc_domain_set_access_required(xc_interface *xch, uint32_t domid,
            unsigned int required)
4.6-      int xc_domain_debug_control(xc_interface *xch, uint32_t domid, uint32_t sop,
            uint32_t vcpu)
4.6-      int xc_vcpu_getinfo(xc_interface *xch, uint32_t domid, uint32_t vcpu,
            xc_vcpuinfo_t *info)
4.6-      int xc_hvm_param_get(xc_interface *handle, arg_domid_t dom, uint32_t param,
            uint64_t *value)
4.6-4.8   int xc_hvm_inject_trap(xc_interface *xch, arg_domid_t domid, int vcpu, uint32_t vector,
            uint32_t type, uint32_t error_code, uint32_t insn_len, uint64_t cr2)
4.9-      int xc_hvm_inject_trap(xc_interface *xch, arg_domid_t domid, int vcpu, uint8_t vector,
            uint8_t type, uint32_t error_code, uint8_t insn_len, uint64_t cr2)

4.6-      void *xc_monitor_enable(xc_interface *xch, arg_domid_t domain_id, uint32_t *port)
4.6-      int xc_monitor_disable(xc_interface *xch, arg_domid_t domain_id)
4.6-      int xc_monitor_resume(xc_interface *xch, arg_domid_t domain_id)
4.6-      int xc_monitor_get_capabilities(xc_interface *xch, arg_domid_t domain_id,
            uint32_t *capabilities)
4.6-4.9   int xc_monitor_write_ctrlreg(xc_interface *xch, arg_domid_t domain_id, uint16_t index,
            bool enable, bool sync, bool onchangeonly)
4.10-     int xc_monitor_write_ctrlreg(xc_interface *xch, arg_domid_t domain_id, uint16_t index,
            bool enable, bool sync, uint64_t bitmask, bool onchangeonly)
4.6-4.7   int xc_monitor_mov_to_msr(xc_interface *xch, arg_domid_t domain_id, bool enable,
            bool extended_capture)
4.8-4.10  int xc_monitor_mov_to_msr(xc_interface *xch, arg_domid_t domain_id, uint32_t msr,
            bool enable)
4.11-     int xc_monitor_mov_to_msr(xc_interface *xch, arg_domid_t domain_id, uint32_t msr,
            bool enable, bool onchangeonly)
4.6-      int xc_monitor_singlestep(xc_interface *xch, arg_domid_t domain_id, bool enable)
4.6-      int xc_monitor_software_breakpoint(xc_interface *xch, arg_domid_t domain_id, bool enable)
4.9-      int xc_monitor_descriptor_access(xc_interface *xch, arg_domid_t domain_id, bool enable)
4.6-4.9   int xc_monitor_guest_request(xc_interface *xch, arg_domid_t domain_id, bool enable,
            bool sync)
4.10-     int xc_monitor_guest_request(xc_interface *xch, arg_domid_t domain_id, bool enable,
            bool sync, bool allow_userspace)
4.12-     int xc_monitor_inguest_pagefault(xc_interface *xch, arg_domid_t domain_id, bool disable)
4.8-      int xc_monitor_debug_exceptions(xc_interface *xch, arg_domid_t domain_id, bool enable,
            bool sync)
4.8-      int xc_monitor_cpuid(xc_interface *xch, arg_domid_t domain_id, bool enable)
4.8-      int xc_monitor_privileged_call(xc_interface *xch, arg_domid_t domain_id, bool enable)
4.10-     int xc_monitor_emul_unimplemented(xc_interface *xch, arg_domid_t domain_id, bool enable)
4.7-      int xc_monitor_emulate_each_rep(xc_interface *xch, arg_domid_t domain_id, bool enable)
4.17-     int xc_monitor_vmexit(xc_interface *xch, arg_domid_t domain_id, bool enable, bool sync)
4.18-     int xc_monitor_io(xc_interface *xch, arg_domid_t domain_id, bool enable)

4.6-      int xc_set_mem_access(xc_interface *xch, arg_domid_t domain_id, xenmem_access_t access,
            uint64_t first_pfn, uint32_t nr)
4.8-      int xc_set_mem_access_multi(xc_interface *xch, arg_domid_t domain_id, uint8_t *access,
            uint64_t *pages, uint32_t nr)
4.6-      int xc_get_mem_access(xc_interface *xch, arg_domid_t domain_id, uint64_t pfn,
            xenmem_access_t *access)

4.6-      int xc_altp2m_get_domain_state(xc_interface *handle, arg_domid_t dom, bool *state)
4.6-      int xc_altp2m_set_domain_state(xc_interface *handle, arg_domid_t dom, bool state)
4.6-      int xc_altp2m_create_view(xc_interface *handle, arg_domid_t domid,
            xenmem_access_t default_access, uint16_t *view_id)
4.6-      int xc_altp2m_destroy_view(xc_interface *handle, arg_domid_t domid, uint16_t view_id)
4.6-      int xc_altp2m_switch_to_view(xc_interface *handle, arg_domid_t domid, uint16_t view_id)
4.6-      int xc_altp2m_set_mem_access(xc_interface *handle, arg_domid_t domid, uint16_t view_id,
            xen_pfn_t gfn, xenmem_access_t access)
4.11-     int xc_altp2m_set_mem_access_multi(xc_interface *handle, arg_domid_t domid,
            uint16_t view_id, uint8_t *access, uint64_t *gfns, uint32_t nr)
4.12-     int xc_altp2m_get_mem_access(xc_interface *handle, arg_domid_t domid, uint16_t view_id,
            xen_pfn_t gfn, xenmem_access_t *access)
4.6-      int xc_altp2m_change_gfn(xc_interface *handle, arg_domid_t domid, uint16_t view_id,
            xen_pfn_t old_gfn, xen_pfn_t new_gfn)
4.13-     int xc_altp2m_get_vcpu_p2m_idx(xc_interface *handle, arg_domid_t domid, uint32_t vcpuid,
            uint16_t *p2midx)
4.14-     int xc_altp2m_set_visibility(xc_interface *handle, arg_domid_t domid, uint16_t view_id,
            bool visible)

4.6-4.6   xenevtchn_open = xc_evtchn *xc_evtchn_open(xentoollog_logger *logger,
            unsigned open_flags)
4.6-4.6   xenevtchn_close = int xc_evtchn_close(xc_evtchn *xce)
4.6-4.6   xenevtchn_fd = int xc_evtchn_fd(xc_evtchn *xce)
4.6-4.6   xenevtchn_bind_interdomain = int xc_evtchn_bind_interdomain(xc_evtchn *xce, int domid,
            evtchn_port_t remote_port)
4.6-4.6   xenevtchn_unbind = int xc_evtchn_unbind(xc_evtchn *xce, evtchn_port_t port)
4.6-4.6   xenevtchn_notify = int xc_evtchn_notify(xc_evtchn *xce, evtchn_port_t port)
4.6-4.6   xenevtchn_pending = int xc_evtchn_pending(xc_evtchn *xce)
4.6-4.6   xenevtchn_unmask = int xc_evtchn_unmask(xc_evtchn *xce, evtchn_port_t port)
4.7-      xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned int flags)
4.7-      int xenevtchn_close(xenevtchn_handle *xce)
4.7-      int xenevtchn_fd(xenevtchn_handle *xce)
4.7-      int xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid,
            evtchn_port_t remote_port)
4.7-      int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
4.7-      int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
4.7-      int xenevtchn_pending(xenevtchn_handle *xce)
4.7-      int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)

4.7-      xenforeignmemory_handle *xenforeignmemory_open(xentoollog_logger *logger,
            unsigned open_flags)
4.7-      int xenforeignmemory_close(xenforeignmemory_handle *fmem)
4.7-      void *xenforeignmemory_map(xenforeignmemory_handle *fmem, uint32_t dom, int prot,
            size_t pages, const xen_pfn_t arr[], int err[])
4.7-      int xenforeignmemory_unmap(xenforeignmemory_handle *fmem, void *addr, size_t pages)

4.7-      xencall_handle *xencall_open(xentoollog_logger *logger, unsigned open_flags)
4.7-      int xencall_close(xencall_handle *xcall)
4.7-      void *xencall_alloc_buffer(xencall_handle *xcall, size_t size)
4.7-      void xencall_free_buffer(xencall_handle *xcall, void *p)
4.7-      int xencall1(xencall_handle *xcall, unsigned int op, uint64_t arg1)

4.9-      xendevicemodel_handle *xendevicemodel_open(xentoollog_logger *logger,
            unsigned int open_flags)
4.9-      int xendevicemodel_close(xendevicemodel_handle *dmod)
4.9-      int xendevicemodel_inject_event(xendevicemodel_handle *dmod, domid_t domid, int vcpu,
            uint8_t vector, uint8_t type, uint32_t error_code, uint8_t insn_len, uint64_t cr2)
"""

_ROW = re.compile(
    r"^(?P<since>4\.\d+)-(?P<until>4\.\d+)? +(?:(?P<alias>\w+) = )?"
    r"(?P<head>[^(\n]*?)(?P<symbol>\w+)\((?P<parameters>[^)]*)\)$",
    re.MULTILINE,
)


class Form(NamedTuple):
    """One call as one range of releases has it.

    Attributes:
        since: the first release with this form.
        until: the last one; `NEWEST` stands for "and later ones, as far as is known".
        symbol: the exported C name; it differs from the call's name only where that is an alias.
        prototype: the C declaration without its semicolon.
        parameters: the names of its arguments, in order.
    """

    since: Release
    until: Release
    symbol: str
    prototype: str
    parameters: tuple[str, ...]


def parse_release(text: str) -> Release:
    """``4.17`` as ``(4, 17)``."""
    major, minor = text.split(".")
    return int(major), int(minor)


def _read(rows: str) -> dict[str, tuple[Form, ...]]:
    table: dict[str, tuple[Form, ...]] = {}
    for row in _ROW.finditer(rows):
        parameters = " ".join(row["parameters"].split())
        form = Form(
            parse_release(row["since"]),
            parse_release(row["until"]) if row["until"] else NEWEST,
            row["symbol"],
            f"{row['head']}{row['symbol']}({parameters})",
            tuple(re.findall(r"(\w+)(?:\[\])?(?:,|$)", parameters)),
        )
        name = row["alias"] or row["symbol"]
        table[name] = (*table.get(name, ()), form)
    return table


#: Every call a monitor makes: its name and its forms, oldest first.
CALLS: dict[str, tuple[Form, ...]] = _read(_ROWS)

#: xenmem_access_t from 0 on (xen/memory.h), and what Xen commit ff10aa9d8f inserted.
_ACCESS = ("n", "r", "w", "rw", "x", "rx", "wx", "rwx", "rx2rw", "n2rwx")
_ACCESS_INSERTED: tuple[tuple[Release, str], ...] = (((4, 20), "r_pw"),)

#: VM_EVENT_INTERFACE_VERSION of the releases that cannot be asked (vm_event.h).
VM_EVENT_VERSION = {(4, 6): 1, (4, 7): 1, (4, 8): 2, (4, 9): 2, (4, 10): 2, (4, 11): 3, (4, 12): 4}

#: XEN_DOMCTL_INTERFACE_VERSION (domctl.h) of the releases where a domctl of our own is needed.
DOMCTL_VERSION = {
    (4, 14): 0x12, (4, 15): 0x13, (4, 16): 0x14, (4, 17): 0x15, (4, 18): 0x16, (4, 19): 0x17,
    (4, 20): 0x17, (4, 21): 0x17, (4, 22): 0x18,
}  # fmt: skip

#: XEN_DOMINF_hap (domctl.h) from a release on; before the first the flag did not exist.
_DOMINF_HAP: tuple[tuple[Release, int], ...] = (((4, 8), 1 << 9), ((4, 9), 1 << 8))


def access_names(release: Release) -> tuple[str, ...]:
    """The page permissions of a release; a name's position is its value.

    ``default`` is always the last: 10 up to Xen 4.19, 11 from 4.20 on, where 10 is ``r_pw``.
    """
    inserted = (name for since, name in _ACCESS_INSERTED if since <= release)
    return (*_ACCESS, *inserted, "default")


def hap_flag(release: Release) -> int | None:
    """The bit of a domain's flags that says HAP, or None where no bit does (4.6, 4.7)."""
    return next((bit for since, bit in reversed(_DOMINF_HAP) if since <= release), None)


def clamp(release: Release) -> Release:
    """The release whose declarations serve this one: itself, or the newest known."""
    return min(release, NEWEST)


def form(call: str, release: Release) -> Form | None:
    """The form of a call in a release, or None if that release lacks it."""
    wanted = clamp(release)
    return next((one for one in CALLS[call] if one.since <= wanted <= one.until), None)


def first_release(call: str, parameter: str | None = None) -> Release | None:
    """The first release that has this call (with this parameter), or None if none has."""
    forms = (one for one in CALLS[call] if parameter is None or parameter in one.parameters)
    return next((one.since for one in forms), None)


def domid_type(release: Release) -> str:
    """The C type behind ``arg_domid_t`` in a release."""
    return next(ctype for since, ctype in reversed(_ARG_DOMID) if since <= release)


def declarations(release: Release) -> str:
    """Types and prototypes of a release, as cffi's cdef() reads them."""
    forms = (form(call, release) for call in CALLS)
    return "\n".join(
        [
            _TYPES,
            f"typedef {domid_type(release)} arg_domid_t;",
            *(f"{one.prototype};" for one in forms if one is not None),
        ]
    )
