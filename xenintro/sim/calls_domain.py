"""Calls about domains, the host, guest memory and event channels."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from xenintro.sim import wire
from xenintro.sim.calls import Client, find, handles, refuse
from xenintro.sim.evtchn import Device
from xenintro.sim.memory import MAX_GFN, RAM_PAGES
from xenintro.sim.monitor import capabilities
from xenintro.sim.vcpu import Injection

if TYPE_CHECKING:
    from xenintro.sim.domain import Domain

#: DOMINF flags (public/domctl.h).
_DYING, _HVM, _SHUTDOWN, _PAUSED, _BLOCKED, _RUNNING = 1, 2, 4, 8, 16, 32

_MOST_PAUSES = 255
_NS_PER_INSTRUCTION = 1000
_DOMCTL = 36
#: XEN_DOMCTL_INTERFACE_VERSION by first release (4.10 is the value of its last point releases).
_DOMCTL_VERSION = {
    (4, 6): 0xB,
    (4, 8): 0xC,
    (4, 9): 0xD,
    (4, 10): 0xF,
    (4, 11): 0x10,
    (4, 12): 0x11,
    (4, 13): 0x12,
    (4, 15): 0x13,
    (4, 16): 0x14,
    (4, 17): 0x15,
    (4, 18): 0x16,
    (4, 19): 0x17,
    (4, 22): 0x18,
}
_DOMCTL_MONITOR_OP = 77
_OP_GET_CAPABILITIES, _OP_CONTROL_REGISTERS = 2, 4


@handles("xc_interface_open", "xendevicemodel_open", "xenforeignmemory_open", "xencall_open")
def _open(client: Client) -> wire.Result:
    return wire.Result(0, _asks(client))


def _asks(client: Client) -> bytes:
    """Whether a handle tells of local calls too."""
    return struct.pack("=I", client.machine.faults.local)


@handles("xc_version")
def _version(client: Client, command: int) -> wire.Result:
    major, minor = client.machine.release
    if command == 0:
        return wire.Result(major << 16 | minor)
    if command == 7:
        return wire.Result(4096)
    answers = {
        1: (b".0-sim", 16),
        2: (b"", 144),
        3: (f"xen-3.0-x86_64 hvm-3.0-x86_64 (simulated {major}.{minor})".encode(), 1024),
        4: (b"simulated", 64),
        5: (struct.pack("=Q", 0xFFFF_8000_0000_0000), 8),
        6: (b"", 8),
        8: (b"", 16),
        9: (b"", 1024),
    }
    if command not in answers:
        raise refuse(errno.ENOSYS)
    text, size = answers[command]
    return wire.Result(0, text.ljust(size, b"\0"))


@handles("xc_vm_event_get_version")
def _event_version(client: Client) -> int:
    return client.machine.interface.version or 0


@handles("xc_domain_pause")
def _pause(client: Client, domain: Domain) -> int:
    if domain.domid == 0:
        raise refuse(errno.EINVAL)
    if domain.pauses >= _MOST_PAUSES:
        raise refuse(errno.EOVERFLOW)
    domain.pauses += 1
    return 0


@handles("xc_domain_unpause")
def _unpause(client: Client, domain: Domain) -> int:
    if domain.domid == 0 or not domain.pauses:
        raise refuse(errno.EINVAL)
    domain.pauses -= 1
    return 0


@handles("xc_domain_destroy")
def _destroy(client: Client, domain: Domain) -> int:
    if domain.domid == 0:
        raise refuse(errno.EINVAL)
    client.machine.destroy(domain)
    return 0


@handles("xc_domain_shutdown")
def _shutdown(client: Client, domain: Domain, reason: int) -> int:
    domain.shut_down(reason)
    return 0


@handles("xc_domain_getinfolist")
def _getinfolist(client: Client, first: int, count: int) -> wire.Result:
    domains = _from(client, first, count)
    return wire.Result(len(domains), b"".join(_info(client, domain) for domain in domains))


@handles("xc_domain_getinfo_single")
def _getinfo_single(client: Client, domain: Domain) -> wire.Result:
    return wire.Result(0, _info(client, domain))


@handles("xc_domain_getinfo")
def _getinfo(client: Client, first: int, count: int) -> wire.Result:
    domains = _from(client, first, count)
    return wire.Result(len(domains), b"".join(_dominfo(client, domain) for domain in domains))


def _from(client: Client, first: int, count: int) -> list[Domain]:
    """The first domains with an id >= first."""
    domids = sorted(domid for domid in client.machine.domains if domid >= first)
    return [client.machine.domains[domid] for domid in domids[:count]]


def _flags(domain: Domain) -> int:
    flags = _HVM if domain.hvm else 0
    if domain.dying:
        flags |= _DYING
    if domain.shutdown is not None:
        flags |= _SHUTDOWN | domain.shutdown << 16
    if domain.pauses:
        flags |= _PAUSED
    if all(vcpu.halted for vcpu in domain.vcpus):
        return flags | _BLOCKED
    stopped = all(vcpu.stopped for vcpu in domain.vcpus)
    return flags if stopped else flags | _RUNNING


def _info(client: Client, domain: Domain) -> bytes:
    """Struct xen_domctl_getdomaininfo; its head is the same in every release."""
    release = client.machine.release
    size = 96 if release <= (4, 9) else 104 if release <= (4, 15) else 112
    hap = 0x200 if release == (4, 8) else 0x100
    pages = RAM_PAGES if domain.hvm else 0
    head = struct.pack(
        "=HxxI6QQIII16sI",
        domain.domid,
        _flags(domain) | (hap if domain.hvm else 0),
        *(pages, pages + 256, 0, 0, 0, 0xFFFF_FFFF_FFFF_FFFF),
        sum(vcpu.retired for vcpu in domain.vcpus) * _NS_PER_INSTRUCTION,
        len(domain.vcpus),
        len(domain.vcpus) - 1,
        0,
        domain.uuid.bytes,
        0,
    )
    return head.ljust(size, b"\0")


def _dominfo(client: Client, domain: Domain) -> bytes:
    """xc_dominfo_t (up to 4.17): the flags as bit fields."""
    release = client.machine.release
    flags = _flags(domain)
    crashed = domain.shutdown == 3
    bits = (
        (flags & _DYING) * 1
        | crashed << 1
        | (domain.shutdown is not None and not crashed) << 2
        | bool(flags & _PAUSED) << 3
        | bool(flags & _BLOCKED) << 4
        | bool(flags & _RUNNING) << 5
        | domain.hvm << 6
    )
    if domain.hvm and release >= (4, 8):
        bits |= 1 << (10 if release == (4, 8) else 9)
    pages = RAM_PAGES if domain.hvm else 0
    head = struct.pack(
        "=IIII7QII16sI",
        domain.domid,
        0,
        bits,
        domain.shutdown or 0,
        *(pages, 0, 0, 0, 0xFFFF_FFFF_FFFF_FFFF),
        sum(vcpu.retired for vcpu in domain.vcpus) * _NS_PER_INSTRUCTION,
        (pages + 256) * 4,
        len(domain.vcpus),
        len(domain.vcpus) - 1,
        domain.uuid.bytes,
        0,
    )
    return head.ljust(104 if release <= (4, 14) else 112, b"\0")


@handles("xc_domain_maximum_gpfn")
def _maximum_gpfn(client: Client, domain: Domain) -> wire.Result:
    return wire.Result(0, struct.pack("=Q", MAX_GFN if domain.hvm else 0))


@handles("xc_domain_nr_gpfns")
def _nr_gpfns(client: Client, domain: Domain) -> wire.Result:
    return wire.Result(0, struct.pack("=Q", MAX_GFN + 1 if domain.hvm else 1))


@handles("xc_domain_debug_control")
def _debug_control(client: Client, domain: Domain, op: int, vcpu_id: int) -> int:
    if vcpu_id >= len(domain.vcpus) or not domain.hvm:
        raise refuse(errno.EINVAL)
    if op not in (0, 1):
        raise refuse(errno.ENOSYS)
    if client.machine.vendor == "amd":  # no monitor trap flag
        raise refuse(errno.EOPNOTSUPP)
    vcpu = domain.vcpus[vcpu_id]
    vcpu.single_step = bool(op)
    vcpu.fast_step_view = None
    return 0


@handles("xc_vcpu_getinfo")
def _vcpu_getinfo(client: Client, domain: Domain, vcpu_id: int) -> wire.Result:
    if vcpu_id >= len(domain.vcpus):
        raise refuse(errno.ESRCH)
    vcpu = domain.vcpus[vcpu_id]
    time = vcpu.retired * _NS_PER_INSTRUCTION
    running = not vcpu.stopped
    state = struct.pack("=IBBBxQIxxxx", vcpu_id, 1, vcpu.halted, running, time, vcpu_id % 2)
    return wire.Result(0, state)


@handles("xc_hvm_param_get", "xc_get_hvm_param")
def _param(client: Client, domain: Domain, param: int) -> wire.Result:
    if not domain.hvm:
        raise refuse(errno.EINVAL)
    return wire.Result(0, struct.pack("=Q", domain.params.get(param, 0)))


@handles("xc_hvm_inject_trap", "xendevicemodel_inject_event")
def _inject(client: Client, domain: Domain, *values: int) -> int:
    vcpu_id, vector, kind, error_code, insn_length, _ = values
    if not domain.hvm:
        raise refuse(errno.EINVAL)
    if vcpu_id >= len(domain.vcpus):
        raise refuse(errno.ENOENT if client.machine.release <= (4, 8) else errno.EINVAL)
    vcpu = domain.vcpus[vcpu_id]
    if vcpu.injection is not None:
        raise refuse(errno.EBUSY)
    vcpu.injection = Injection(vector, kind, error_code, insn_length)
    return 0


@handles("xenforeignmemory_map")
def _map(client: Client, domid: int, count: int) -> wire.Result:
    """By gfn the page's frame, or -errno."""
    domain = find(client.machine, domid)
    gfns = struct.unpack(f"={count}Q", client.data[: 8 * count])
    frames = [domain.pages.frame(gfn) if domain.hvm else None for gfn in gfns]
    domain.pages.handed_to(client.pid)
    answer = [-errno.EINVAL if frame is None else frame for frame in frames]
    return wire.Result(0, struct.pack(f"={count}q", *answer), domain.pages.fd)


@handles("xc_domain_populate_physmap_exact")
def _populate(client: Client, domid: int, count: int, order: int, flags: int) -> int:
    """Fewer pages than asked for, for whatever reason, and libxc says EBUSY."""
    domain = client.machine.domains.get(domid)
    gfns = struct.unpack(f"={count}Q", client.data[: 8 * count])
    if domain is None or domain.dying or order or not all(map(domain.pages.populate, gfns)):
        raise refuse(errno.EBUSY)
    return 0


@handles("xencall1")
def _hypercall(client: Client, op: int) -> wire.Result:
    """XEN_DOMCTL_monitor_op, for what no libxc wraps: its MONITOR_OP_CONTROL_REGISTERS (4.14 on)."""
    machine = client.machine
    if op != _DOMCTL or len(client.data) < 24:
        raise refuse(errno.ENOSYS)
    command, version, domid = struct.unpack_from("=IIH", client.data)
    known = max(release for release in _DOMCTL_VERSION if release <= machine.release)
    if version != _DOMCTL_VERSION[known]:
        raise refuse(errno.EACCES)
    domain = find(machine, domid)
    (monitor_op,) = struct.unpack_from("=I", client.data, 16)
    if command != _DOMCTL_MONITOR_OP:
        raise refuse(errno.ENOSYS)
    if domain.domid == 0:
        raise refuse(errno.EPERM)
    if monitor_op == _OP_GET_CAPABILITIES:
        answer = capabilities(machine.release, machine.vendor, domain.hvm)
        return wire.Result(0, client.data[:20] + struct.pack("=I", answer) + client.data[24:])
    if monitor_op != _OP_CONTROL_REGISTERS or machine.release < (4, 14):
        raise refuse(errno.EOPNOTSUPP)
    if domain.ring is None:  # without one a write waits in v->arch.vm_event, which is NULL
        machine.rules.broke("trap-before-ring", f"domain {domain.domid}: control registers")
    domain.monitor.control_register_values = True
    return wire.Result(0, client.data)


# Event channels.


@handles("xenevtchn_open")
def _evtchn_open(client: Client) -> wire.Result:
    client.device = Device(client.machine.rules)
    return wire.Result(0, _asks(client), client.device.far.fileno())


def _device(client: Client) -> Device:
    if client.device is None:
        raise refuse(errno.EBADF)
    return client.device


@handles("xenevtchn_bind_interdomain")
def _bind(client: Client, domid: int, port: int) -> int:
    domain = find(client.machine, domid)
    if domain.ring is None or domain.ring.channel.port != port:
        raise refuse(errno.EINVAL)
    return _device(client).bind(domain.ring.channel)


@handles("xenevtchn_unbind")
def _unbind(client: Client, port: int) -> int:
    _device(client).unbind(port)
    return 0


@handles("xenevtchn_notify")
def _notify(client: Client, port: int) -> int:
    _device(client).port(port).notify()
    return 0
