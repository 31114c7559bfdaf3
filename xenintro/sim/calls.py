"""The calls of libxc and its companions: names, arguments by release, and where they are handled.

The same symbol gets other arguments from a client of another release, and client.c passes on raw
registers; `ARGUMENTS` says what they are. A ``:n`` is the width in bits; ``:b`` a C bool.
"""

from __future__ import annotations

import errno
from functools import cache
from typing import TYPE_CHECKING

from xenintro.sim.errnos import LOCAL
from xenintro.sim.wire import Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.sim.domain import Domain
    from xenintro.sim.evtchn import Device
    from xenintro.sim.machine import Machine
    from xenintro.sim.monitor import Release

    Handler = Callable[..., Result | int]

DOMID_INVALID = 0x7FF4

#: domid_t became uint32_t in 5b42c82f55 (4.10).
_WIDE_DOMID: Release = (4, 10)

_DOM = "dom"
_GONE = "-"
_SWITCH = {(4, 6): "dom enable:b"}

#: By call and first release; the newest that is not newer than the release played counts.
ARGUMENTS: dict[str, dict[Release, str]] = {
    "xc_interface_open": {(4, 5): ""},
    "xc_version": {(4, 5): "cmd:32"},
    "xc_vm_event_get_version": {(4, 13): ""},
    "xc_domain_pause": {(4, 5): "dom"},
    "xc_domain_unpause": {(4, 5): "dom"},
    "xc_domain_destroy": {(4, 5): "dom"},
    "xc_domain_shutdown": {(4, 5): "dom reason:32"},
    "xc_domain_getinfo": {(4, 5): "first:32 count:32", (4, 18): _GONE},
    "xc_domain_getinfolist": {(4, 5): "first:32 count:32"},
    "xc_domain_getinfo_single": {(4, 18): "dom"},
    "xc_domain_maximum_gpfn": {(4, 6): "dom"},
    "xc_domain_nr_gpfns": {(4, 6): "dom"},
    "xc_domain_populate_physmap_exact": {(4, 5): "domid:32 count:32 order:32 flags:32"},
    "xc_domain_set_access_required": {(4, 5): "dom required:32"},
    "xc_domain_debug_control": {(4, 5): "dom op:32 vcpu:32"},
    "xc_vcpu_getinfo": {(4, 5): "dom vcpu:32"},
    "xc_hvm_param_get": {(4, 5): "dom param:32"},
    "xc_get_hvm_param": {(4, 5): "dom param:32"},
    "xc_hvm_inject_trap": {
        (4, 5): "dom vcpu:32 vector:32 type:32 error_code:32 insn_len:32 cr2:64",
        (4, 9): "dom vcpu:32 vector:8 type:8 error_code:32 insn_len:8 cr2:64",
    },
    "xendevicemodel_inject_event": {(4, 9): "dom vcpu:32 vector:8 type:8 error_code:32 insn_len:8 cr2:64"},
    "xc_monitor_enable": {(4, 6): "dom"},
    "xc_monitor_disable": {(4, 6): "dom"},
    "xc_monitor_resume": {(4, 6): "dom"},
    "xc_monitor_get_capabilities": {(4, 6): "dom"},
    "xc_monitor_write_ctrlreg": {
        (4, 6): "dom index:16 enable:b sync:b onchangeonly:b",
        (4, 10): "dom index:16 enable:b sync:b bitmask:64 onchangeonly:b",
    },
    "xc_monitor_mov_to_msr": {
        (4, 6): "dom enable:b extended:b",
        (4, 8): "dom msr:32 enable:b",
        (4, 11): "dom msr:32 enable:b onchangeonly:b",
    },
    "xc_monitor_singlestep": _SWITCH,
    "xc_monitor_software_breakpoint": _SWITCH,
    "xc_monitor_descriptor_access": {(4, 9): "dom enable:b"},
    "xc_monitor_guest_request": {
        (4, 6): "dom enable:b sync:b",
        (4, 10): "dom enable:b sync:b allow_userspace:b",
    },
    "xc_monitor_inguest_pagefault": {(4, 12): "dom enable:b"},
    "xc_monitor_debug_exceptions": {(4, 8): "dom enable:b sync:b"},
    "xc_monitor_cpuid": {(4, 8): "dom enable:b"},
    "xc_monitor_privileged_call": {(4, 8): "dom enable:b"},
    "xc_monitor_emul_unimplemented": {(4, 10): "dom enable:b"},
    "xc_monitor_emulate_each_rep": {(4, 7): "dom enable:b"},
    "xc_monitor_vmexit": {(4, 17): "dom enable:b sync:b"},
    "xc_monitor_io": {(4, 18): "dom enable:b"},
    "xc_set_mem_access": {(4, 5): "dom access:32 first:64 count:32"},
    "xc_set_mem_access_multi": {(4, 8): "dom count:32"},
    "xc_get_mem_access": {(4, 5): "dom gfn:64"},
    "xc_altp2m_get_domain_state": {(4, 6): "dom"},
    "xc_altp2m_set_domain_state": {(4, 6): "dom enable:b"},
    "xc_altp2m_create_view": {(4, 6): "dom access:32"},
    "xc_altp2m_destroy_view": {(4, 6): "dom view:16"},
    "xc_altp2m_switch_to_view": {(4, 6): "dom view:16"},
    "xc_altp2m_set_mem_access": {(4, 6): "dom view:16 gfn:64 access:32"},
    "xc_altp2m_set_mem_access_multi": {(4, 11): "dom view:16 count:32"},
    "xc_altp2m_get_mem_access": {(4, 12): "dom view:16 gfn:64"},
    "xc_altp2m_change_gfn": {(4, 6): "dom view:16 old:64 new:64"},
    "xc_altp2m_get_vcpu_p2m_idx": {(4, 13): "dom vcpu:32"},
    "xc_altp2m_set_visibility": {(4, 14): "dom view:16 visible:b"},
    "xenevtchn_open": {(4, 6): ""},
    "xenevtchn_bind_interdomain": {(4, 6): "domid:32 port:32"},
    "xenevtchn_unbind": {(4, 6): "port:32"},
    "xenevtchn_notify": {(4, 6): "port:32"},
    "xendevicemodel_open": {(4, 9): ""},
    "xenforeignmemory_open": {(4, 7): ""},
    "xencall_open": {(4, 7): ""},
    "xencall1": {(4, 7): "op:32"},
    "xenforeignmemory_map": {(4, 5): "domid:32 count:32"},
}

HANDLERS: dict[str, Handler] = {}


class Client:
    """One open handle of a program.

    Attributes:
        pid: of the process that called last: handles survive a fork.
        device: its event channel device, if it is an evtchn handle.
        data: the bytes that came with the call being handled.
    """

    def __init__(self, machine: Machine, pid: int = 0) -> None:
        self.machine = machine
        self.pid = pid
        self.device: Device | None = None
        self.data = b""


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register the function that does these calls."""

    def register(function: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = function
        return function

    return register


def refuse(code: int) -> OSError:
    """The error that makes a call return -1 with this errno."""
    return OSError(code, errno.errorcode.get(code, str(code)))


def perform(client: Client, name: str, raw: tuple[int, ...], data: bytes) -> Result:
    """Do one call.

    Args:
        client: who asks.
        name: of the C function.
        raw: its arguments as registers.
        data: what its input pointers point to.

    Raises:
        OSError: the call fails; errno says how.
    """
    if name in LOCAL or name.endswith("_close"):
        return Result()
    machine = client.machine
    fields = _form(name, machine.release)
    if fields is None or name not in HANDLERS:
        raise refuse(errno.ENOSYS)
    client.data = data
    arguments: list[int | Domain] = []
    for value, (kind, mask) in zip(raw, fields, strict=False):
        if kind == _DOM:
            arguments.append(find(machine, value & mask))
        else:
            arguments.append(int(value & mask != 0) if kind == "b" else value & mask)
    result = HANDLERS[name](client, *arguments)
    return result if isinstance(result, Result) else Result(result)


@cache
def _form(name: str, release: Release) -> tuple[tuple[str, int], ...] | None:
    """The arguments of a call in a release, as kind and mask; None where there is no such call."""
    known = [since for since in ARGUMENTS.get(name, {}) if since <= release]
    if not known or ARGUMENTS[name][max(known)] == _GONE:
        return None
    fields = []
    for field in ARGUMENTS[name][max(known)].split():
        kind, _, width = field.partition(":")
        if kind == _DOM:
            fields.append((_DOM, 0xFFFFFFFF if release >= _WIDE_DOMID else 0xFFFF))
        elif width == "b":
            fields.append(("b", 0xFF))
        else:
            fields.append(("", (1 << int(width)) - 1))
    return tuple(fields)


def find(machine: Machine, domid: int) -> Domain:
    """A domain by number: a dying one is still there."""
    if domid == DOMID_INVALID:
        machine.rules.broke("domid-invalid", "domid 0x7ff4")
    domain = machine.domains.get(domid)
    if domain is None:
        raise refuse(errno.ESRCH)
    return domain
