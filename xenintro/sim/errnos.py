"""Which errno each call can leave behind: data for fault injection.

From the error returns of Xen 4.6 to 4.22 (common/domctl.c, vm_event.c, monitor.c, memory.c,
event_channel.c, arch/x86/hvm/hvm.c), Linux' privcmd and evtchn drivers, and libxc itself, whose bounce
buffers make ENOMEM possible everywhere.
"""

from __future__ import annotations

_DEVICE = "ENOENT ENXIO ENODEV EACCES EPERM EMFILE ENOMEM"
_HYPERCALL = "EPERM EACCES ENOMEM EFAULT"
_DOMAIN = f"ESRCH {_HYPERCALL}"
_TRAP = f"EEXIST EOPNOTSUPP ENOSYS EINVAL {_DOMAIN}"
_PAGES = f"ENODEV EINVAL {_DOMAIN}"
_VIEW = f"EOPNOTSUPP ENOSYS EINVAL {_DOMAIN}"

_CALLS = {
    "xc_interface_open": _DEVICE,
    "xc_version": f"ENOSYS {_HYPERCALL}",
    "xc_vm_event_get_version": f"ENOSYS {_HYPERCALL}",
    "xc_domain_pause": f"EINVAL EOVERFLOW {_DOMAIN}",
    "xc_domain_unpause": f"EINVAL {_DOMAIN}",
    "xc_domain_destroy": f"EINVAL {_DOMAIN}",
    "xc_domain_shutdown": _DOMAIN,
    "xc_domain_getinfo": _HYPERCALL,
    "xc_domain_getinfolist": _HYPERCALL,
    "xc_domain_getinfo_single": _DOMAIN,
    "xc_domain_maximum_gpfn": f"EINVAL {_DOMAIN}",
    "xc_domain_nr_gpfns": f"EINVAL {_DOMAIN}",
    "xc_domain_populate_physmap_exact": f"EBUSY {_HYPERCALL}",
    "xc_domain_set_access_required": _DOMAIN,
    "xc_domain_debug_control": f"EOPNOTSUPP ENOSYS EINVAL {_DOMAIN}",
    "xc_vcpu_getinfo": _DOMAIN,
    "xc_hvm_param_get": f"EINVAL {_DOMAIN}",
    "xc_get_hvm_param": f"EINVAL {_DOMAIN}",
    "xc_hvm_inject_trap": f"EBUSY ENOENT EINVAL EOPNOTSUPP {_DOMAIN}",
    "xendevicemodel_open": _DEVICE,
    "xendevicemodel_inject_event": f"EBUSY ENOENT EINVAL EOPNOTSUPP {_DOMAIN}",
    "xc_monitor_enable": f"EBUSY ENODEV ENOSYS EOPNOTSUPP EINVAL EOVERFLOW {_DOMAIN}",
    "xc_monitor_disable": f"EBUSY EINVAL {_DOMAIN}",
    "xc_monitor_resume": f"EINVAL ENODEV {_DOMAIN}",
    "xc_monitor_get_capabilities": _DOMAIN,
    **dict.fromkeys(
        (
            *("xc_monitor_write_ctrlreg", "xc_monitor_singlestep", "xc_monitor_software_breakpoint"),
            *("xc_monitor_descriptor_access", "xc_monitor_guest_request", "xc_monitor_inguest_pagefault"),
            *("xc_monitor_debug_exceptions", "xc_monitor_cpuid", "xc_monitor_privileged_call"),
            *("xc_monitor_emul_unimplemented", "xc_monitor_emulate_each_rep", "xc_monitor_vmexit"),
            "xc_monitor_io",
        ),
        _TRAP,
    ),
    "xc_monitor_mov_to_msr": f"ENXIO {_TRAP}",
    "xc_set_mem_access": _PAGES,
    "xc_set_mem_access_multi": _PAGES,
    "xc_get_mem_access": _PAGES,
    **dict.fromkeys(
        (
            *("xc_altp2m_get_domain_state", "xc_altp2m_set_domain_state", "xc_altp2m_create_view"),
            *("xc_altp2m_switch_to_view", "xc_altp2m_set_mem_access", "xc_altp2m_set_mem_access_multi"),
            *("xc_altp2m_get_mem_access", "xc_altp2m_change_gfn", "xc_altp2m_get_vcpu_p2m_idx"),
            "xc_altp2m_set_visibility",
        ),
        _VIEW,
    ),
    "xc_altp2m_destroy_view": f"EBUSY {_VIEW}",
    "xenevtchn_open": _DEVICE,
    "xenevtchn_bind_interdomain": "EINVAL ENOSPC EACCES EPERM ENOMEM ESRCH EFAULT",
    "xenevtchn_unbind": "EINVAL ENOTCONN EFAULT",
    "xenevtchn_notify": "EINVAL ENOTCONN EPERM EFAULT",
    "xenevtchn_pending": "EAGAIN EINTR EINVAL EFBIG EFAULT",
    "xenevtchn_unmask": "EINVAL EFAULT ENOMEM",
    "xenforeignmemory_open": _DEVICE,
    "xenforeignmemory_map": f"EINVAL ENOENT {_DOMAIN}",
    "xenforeignmemory_unmap": "EINVAL",
    "xencall_open": _DEVICE,
    "xencall1": f"EOPNOTSUPP ENOSYS {_DOMAIN}",
    # What closes takes effect whatever it returns.
    **dict.fromkeys(
        (
            *("xc_interface_close", "xenevtchn_close", "xenforeignmemory_close", "xencall_close"),
            "xendevicemodel_close",
        ),
        "EIO",
    ),
}

#: By call, the most telling first.
ERRNOS: dict[str, tuple[str, ...]] = {call: tuple(names.split()) for call, names in _CALLS.items()}

#: Calls that are no hypercall: only handles that were opened while a fault waits for one ask the simulator.
LOCAL = frozenset({"xenevtchn_pending", "xenevtchn_unmask", "xenforeignmemory_unmap"})
