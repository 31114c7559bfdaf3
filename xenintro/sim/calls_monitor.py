"""The monitor's calls: ring, traps, page permissions, altp2m views (common/monitor.c, mem_access.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from xenintro.abi import CAPABILITIES
from xenintro.sim import wire
from xenintro.sim.calls import Client, handles, refuse
from xenintro.sim.domain import MAX_ALTP2M, PARAM_ALTP2M, PARAM_MONITOR_RING_PFN
from xenintro.sim.memory import MAX_GFN
from xenintro.sim.monitor import capabilities
from xenintro.sim.p2m import UNSET, View

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.sim.domain import Domain
    from xenintro.sim.p2m import P2M

_ALL = 0xFFFF_FFFF_FFFF_FFFF
_N2RWX = 9

#: The highest index: what a bit mask held up to 4.9, then the size of the array of bitmasks.
_LAST_CTRLREG = {False: 31, True: 3}

# The ring.


@handles("xc_monitor_enable")
def _enable(client: Client, domain: Domain) -> wire.Result:
    """Libxc's whole sequence: pause, parameter, page, domctl, page out of the physmap, unpause."""
    machine = client.machine
    if domain.domid == 0:
        raise refuse(errno.EINVAL)
    if domain.pauses >= 255:
        raise refuse(errno.EOVERFLOW)
    if not domain.hvm:
        raise refuse(errno.EINVAL)  # from xc_hvm_param_get
    gfn = domain.params[PARAM_MONITOR_RING_PFN]
    if not domain.has_gfn(gfn) and (domain.dying or not domain.pages.populate(gfn)):
        raise refuse(errno.EBUSY)  # from xc_domain_populate_physmap_exact
    if domain.dying or domain.ring is not None:
        raise refuse(errno.EBUSY)
    if not gfn:
        raise refuse(errno.EOPNOTSUPP if machine.release >= (4, 13) else errno.ENOSYS)
    ring = machine.enable_ring(domain)
    domain.pages.handed_to(client.pid)
    return wire.Result(0, struct.pack("=QI", domain.ring_frame, ring.channel.port), domain.pages.fd)


@handles("xc_monitor_disable")
def _disable(client: Client, domain: Domain) -> int:
    if domain.dying:
        return 0  # "Ignoring memory event op on dying domain"
    ring = domain.ring
    if domain.domid == 0 or ring is None:
        raise refuse(errno.EINVAL)
    if ring.waiting:
        # arch_monitor_cleanup_domain runs all the same: the traps are gone, the ring is not.
        domain.forget_traps()
        raise refuse(errno.EBUSY)
    client.machine.disable_ring(domain, ring)
    return 0


@handles("xc_monitor_resume")
def _resume(client: Client, domain: Domain) -> int:
    if domain.dying:
        return 0
    if domain.domid == 0:
        raise refuse(errno.EINVAL)
    if domain.ring is None:
        raise refuse(errno.ENODEV)
    client.machine.resume(domain)
    if client.machine.release < (4, 10):  # b32c0446b1, in the last point releases of 4.10 and later
        raise refuse(errno.EINVAL)
    return 0


# Traps.


@handles("xc_monitor_get_capabilities")
def _capabilities(client: Client, domain: Domain) -> wire.Result:
    if domain.domid == 0:
        raise refuse(errno.EPERM)
    return wire.Result(0, struct.pack("=I", _available(client, domain)))


def _available(client: Client, domain: Domain) -> int:
    return capabilities(client.machine.release, client.machine.vendor, domain.hvm)


def _check(client: Client, domain: Domain, capability: str) -> None:
    if domain.domid == 0:
        raise refuse(errno.EPERM)
    if not _available(client, domain) >> CAPABILITIES[capability] & 1:
        raise refuse(errno.EOPNOTSUPP)


def _switch(attribute: str, capability: str, sync: str = "") -> Callable[..., int]:
    """A trap that is on or off, and maybe synchronous."""

    def handler(client: Client, domain: Domain, enable: int, *more: int) -> int:
        _check(client, domain, capability)
        if getattr(domain.monitor, attribute) == bool(enable):
            raise refuse(errno.EEXIST)
        setattr(domain.monitor, attribute, bool(enable))
        if sync:
            setattr(domain.monitor, sync, bool(more[0]))
        if enable and capability != "inguest_pagefault":
            client.machine.armed(domain, attribute)
        return 0

    return handler


for _call, _attribute, _capability, _sync in (
    ("singlestep", "singlestep", "singlestep", ""),
    ("software_breakpoint", "software_breakpoint", "software_breakpoint", ""),
    ("guest_request", "guest_request", "guest_request", "guest_request_sync"),
    ("debug_exceptions", "debug_exception", "debug_exception", "debug_exception_sync"),
    ("cpuid", "cpuid", "cpuid", ""),
    ("descriptor_access", "descriptor_access", "descriptor_access", ""),
    ("emul_unimplemented", "emul_unimplemented", "emul_unimplemented", ""),
    ("inguest_pagefault", "inguest_pagefault_disabled", "inguest_pagefault", ""),
    ("vmexit", "vmexit", "vmexit", "vmexit_sync"),
    ("io", "io", "io_instruction", ""),
):
    handles(f"xc_monitor_{_call}")(_switch(_attribute, _capability, _sync))


@handles("xc_monitor_privileged_call")
def _privileged_call(client: Client, domain: Domain, enable: int) -> int:
    _check(client, domain, "privileged_call")  # Arm only
    return 0


@handles("xc_monitor_emulate_each_rep")
def _each_rep(client: Client, domain: Domain, enable: int) -> int:
    if domain.domid == 0:
        raise refuse(errno.EPERM)
    return 0


@handles("xc_monitor_write_ctrlreg")
def _write_ctrlreg(client: Client, domain: Domain, index: int, enable: int, sync: int, *more: int) -> int:
    _check(client, domain, "write_ctrlreg")
    bitmask, onchangeonly = more if len(more) == 2 else (0, more[0])
    if index > _LAST_CTRLREG[client.machine.release >= (4, 10)]:
        raise refuse(errno.EINVAL)
    watched = domain.monitor.ctrlregs
    if (index in watched) == bool(enable):
        raise refuse(errno.EEXIST)
    if enable:
        watched[index] = (bool(sync), bool(onchangeonly), bitmask)
        client.machine.armed(domain, f"write_ctrlreg {index}")
    else:
        del watched[index]
    return 0


@handles("xc_monitor_mov_to_msr")
def _mov_to_msr(client: Client, domain: Domain, *values: int) -> int:
    _check(client, domain, "mov_to_msr")
    monitor = domain.monitor
    if client.machine.release < (4, 8):
        enable, extended = values
        if monitor.all_msrs[0] == bool(enable):
            raise refuse(errno.EEXIST)
        monitor.all_msrs = (bool(enable), bool(enable and extended))
    else:
        msr, enable, *more = values
        if (msr in monitor.msrs) == bool(enable):
            raise refuse(errno.EEXIST)
        if domain.ring is None:
            raise refuse(errno.ENXIO)
        if not monitor.valid_msr(msr):
            raise refuse(errno.EINVAL)
        if enable:
            monitor.msrs[msr] = bool(more and more[0])
        else:
            del monitor.msrs[msr]
    if enable:
        client.machine.armed(domain, "mov_to_msr")
    return 0


# Page permissions.


@handles("xc_domain_set_access_required")
def _access_required(client: Client, domain: Domain, required: int) -> int:
    if domain.domid == 0:
        raise refuse(errno.EPERM)
    tables: list[P2M] = [domain.host]
    if client.machine.release >= (4, 12):  # 61bdddb821
        tables += domain.views.values()
    for table in tables:
        table.access_required = bool(required)
    return 0


def _mem_access(client: Client, domain: Domain) -> None:
    """mem_access_memop's checks."""
    if domain.domid == 0:
        raise refuse(errno.EPERM)
    if domain.dying:
        raise refuse(errno.EINVAL)  # rcu_lock_live_remote_domain_by_id
    if not domain.hvm or client.machine.vendor == "amd":
        raise refuse(errno.EINVAL)
    if domain.ring is None:
        raise refuse(errno.ENODEV)


def _permission(client: Client, domain: Domain, access: int) -> int:
    """xenmem_access_to_p2m_access; 4.20 put r_pw before default (ff10aa9d8f)."""
    last = _N2RWX if client.machine.release < (4, 20) else _N2RWX + 1
    if access == last + 1:
        return domain.host.default_access
    if access > last:
        raise refuse(errno.EINVAL)
    return access


@handles("xc_set_mem_access")
def _set_mem_access(client: Client, domain: Domain, access: int, first: int, count: int) -> int:
    _mem_access(client, domain)
    if first == _ALL:
        domain.host.default_access = _permission(client, domain, access)
        return 0
    if count == 0 or first + count - 1 > MAX_GFN:
        raise refuse(errno.EINVAL)
    value = _permission(client, domain, access)
    domain.host.set_range(first, count, value)
    if value != 7:
        client.machine.armed(domain, "page permissions")
    return 0


@handles("xc_set_mem_access_multi")
def _set_mem_access_multi(client: Client, domain: Domain, count: int) -> int:
    _mem_access(client, domain)
    _set_pages(client, domain, domain.host, count)
    return 0


def _set_pages(client: Client, domain: Domain, table: P2M, count: int) -> None:
    gfns = struct.unpack_from(f"={count}Q", client.data)
    accesses = client.data[8 * count : 9 * count]
    for gfn, access in zip(gfns, accesses, strict=True):
        value = _permission(client, domain, access)
        if gfn > MAX_GFN:
            raise refuse(errno.ENOMEM)  # p2m->set_entry beyond the physmap
        table.set_range(gfn, 1, value)


@handles("xc_get_mem_access")
def _get_mem_access(client: Client, domain: Domain, gfn: int) -> wire.Result:
    _mem_access(client, domain)
    if gfn == _ALL:
        return wire.Result(0, struct.pack("=I", domain.host.default_access))
    if gfn > MAX_GFN:
        raise refuse(errno.EINVAL)
    if not domain.has_gfn(gfn):
        raise refuse(errno.ESRCH)
    return wire.Result(0, struct.pack("=I", domain.host.access[gfn]))


# altp2m (hvm.c:do_altp2m_op).


def _altp2m(domain: Domain, active: bool = True) -> None:
    if not domain.hvm or (active and not domain.altp2m):
        raise refuse(errno.EOPNOTSUPP)
    if not domain.params[PARAM_ALTP2M]:
        raise refuse(errno.EINVAL)


def _view(domain: Domain, view: int) -> P2M:
    _altp2m(domain)
    if not domain.has_view(view):
        raise refuse(errno.EINVAL)
    return domain.view(view)


@handles("xc_altp2m_get_domain_state")
def _get_state(client: Client, domain: Domain) -> wire.Result:
    _altp2m(domain, active=False)
    return wire.Result(0, struct.pack("=B", domain.altp2m))


@handles("xc_altp2m_set_domain_state")
def _set_state(client: Client, domain: Domain, enable: int) -> int:
    _altp2m(domain, active=False)
    domain.altp2m = bool(enable)
    if not enable:  # p2m_flush_altp2m
        domain.views.clear()
        domain.leave_views()
    return 0


@handles("xc_altp2m_create_view")
def _create_view(client: Client, domain: Domain, access: int) -> wire.Result:
    _altp2m(domain)
    default = _permission(client, domain, access)
    free = [view for view in range(1, MAX_ALTP2M) if view not in domain.views]
    if not free:
        raise refuse(errno.EINVAL)
    inherit = client.machine.release < (4, 19)
    domain.views[free[0]] = View(domain.host, default, inherit)
    return wire.Result(0, struct.pack("=H", free[0]))


@handles("xc_altp2m_destroy_view")
def _destroy_view(client: Client, domain: Domain, view: int) -> int:
    _altp2m(domain)
    if view == 0 or view not in domain.views:
        raise refuse(errno.EBUSY)
    if any(vcpu.view == view for vcpu in domain.vcpus):
        raise refuse(errno.EBUSY)
    del domain.views[view]
    return 0


@handles("xc_altp2m_switch_to_view")
def _switch_to_view(client: Client, domain: Domain, view: int) -> int:
    _view(domain, view)
    for vcpu in domain.vcpus:
        vcpu.view = view
    return 0


@handles("xc_altp2m_set_mem_access")
def _altp2m_set(client: Client, domain: Domain, view: int, gfn: int, access: int) -> int:
    table = _view(domain, view)
    value = _permission(client, domain, access)
    if gfn == _ALL:
        domain.host.default_access = value
    elif domain.has_gfn(gfn):  # of a hole "we will want to just skip it"
        table.set_range(gfn, 1, value)
    return 0


@handles("xc_altp2m_set_mem_access_multi")
def _altp2m_set_multi(client: Client, domain: Domain, view: int, count: int) -> int:
    _set_pages(client, domain, _view(domain, view), count)
    return 0


@handles("xc_altp2m_get_mem_access")
def _altp2m_get(client: Client, domain: Domain, view: int, gfn: int) -> wire.Result:
    table = _view(domain, view)
    if not domain.has_gfn(gfn) or table.access[gfn] == UNSET:
        raise refuse(errno.ESRCH)
    return wire.Result(0, struct.pack("=I", table.access[gfn]))


@handles("xc_altp2m_change_gfn")
def _change_gfn(client: Client, domain: Domain, view: int, old: int, new: int) -> int:
    """Accepted: guests here do not depend on what a view maps a page to."""
    if view == 0:
        raise refuse(errno.EINVAL)
    _view(domain, view)
    return 0


@handles("xc_altp2m_get_vcpu_p2m_idx")
def _vcpu_view(client: Client, domain: Domain, vcpu_id: int) -> wire.Result:
    _altp2m(domain)
    if vcpu_id >= len(domain.vcpus):
        raise refuse(errno.EINVAL)
    return wire.Result(0, struct.pack("=H", domain.vcpus[vcpu_id].view))


@handles("xc_altp2m_set_visibility")
def _visibility(client: Client, domain: Domain, view: int, visible: int) -> int:
    _view(domain, view)
    return 0
