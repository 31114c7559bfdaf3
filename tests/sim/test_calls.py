"""What the calls refuse, and how, by release."""

from __future__ import annotations

import struct
from errno import (
    EACCES,
    EBUSY,
    EEXIST,
    EINVAL,
    ENODEV,
    ENOSYS,
    ENOTCONN,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
)

import pytest

from tests.sim.host import Host, Monitor
from xenintro.abi import CAPABILITIES
from xenintro.sim.calls import ARGUMENTS, HANDLERS
from xenintro.sim.domain import MAX_GFN

ALL = 0xFFFFFFFFFFFFFFFF


def test_every_call_has_arguments_and_a_handler() -> None:
    assert set(ARGUMENTS) == set(HANDLERS)


@pytest.mark.parametrize(
    ("release", "version", "call"),
    [
        ("4.6", 1, "xc_monitor_cpuid"),
        ("4.8", 2, "xc_monitor_descriptor_access"),
        ("4.12", 4, "xc_vm_event_get_version"),
        ("4.16", 7, "xc_monitor_vmexit"),
        ("4.17", 7, "xc_monitor_io"),
        ("4.17", 7, "xc_domain_getinfo_single"),
        ("4.18", 7, "xc_domain_getinfo"),
    ],
)
def test_call_that_the_release_lacks(release: str, version: int, call: str) -> None:
    assert Host(version=version, release=release).fails(call, 1, 1) == ENOSYS


def test_traps_cannot_be_switched_on_twice() -> None:
    host = Host()
    Monitor(host)
    switches = [
        ("xc_monitor_cpuid",),
        ("xc_monitor_software_breakpoint",),
        ("xc_monitor_singlestep",),
        ("xc_monitor_guest_request",),
        ("xc_monitor_debug_exceptions",),
        ("xc_monitor_descriptor_access",),
        ("xc_monitor_emul_unimplemented",),
        ("xc_monitor_inguest_pagefault",),
        ("xc_monitor_vmexit",),
    ]
    for (name,) in switches:
        assert host.fails(name, 1, 0) == EEXIST
        host.call(name, 1, 1)
        assert host.fails(name, 1, 1) == EEXIST
        host.call(name, 1, 0)
    host.call("xc_monitor_write_ctrlreg", 1, 1, 1, 1, 0, 0)
    assert host.fails("xc_monitor_write_ctrlreg", 1, 1, 1, 1, 0, 0) == EEXIST
    assert host.fails("xc_monitor_write_ctrlreg", 1, 4, 1, 1, 0, 0) == EINVAL
    assert Host(version=1).fails("xc_monitor_write_ctrlreg", 1, 32, 1, 1, 0) == EINVAL


def test_msr_ranges_and_ring() -> None:
    host = Host()
    assert host.fails("xc_monitor_mov_to_msr", 1, 0x174, 1, 0) == ENXIO
    Monitor(host)
    for msr in (0, 0x1FFF, 0x40000000, 0x40001FFF, 0xC0000000, 0xC0001FFF):
        host.call("xc_monitor_mov_to_msr", 1, msr, 1, 0)
    assert host.fails("xc_monitor_mov_to_msr", 1, 0x2000, 1, 0) == EINVAL
    assert host.fails("xc_monitor_mov_to_msr", 1, 0, 1, 0) == EEXIST
    assert host.fails("xc_monitor_mov_to_msr", 1, 5, 0, 0) == EEXIST


@pytest.mark.parametrize(("extended", "seen"), [(0, 0), (1, 1)])
def test_msrs_before_4_8_come_as_a_set(extended: int, seen: int) -> None:
    host = Host([{"do": "wrmsr", "msr": "lstar", "values": [1]}], version=1)
    monitor = Monitor(host)
    host.call("xc_monitor_mov_to_msr", 1, 1, extended)
    host.run()
    assert len(monitor.requests()) == seen


@pytest.mark.parametrize(
    ("call", "arguments", "dom0", "pv"),
    [
        ("xc_monitor_enable", (), EINVAL, EINVAL),
        ("xc_monitor_disable", (), EINVAL, EINVAL),
        ("xc_monitor_cpuid", (1,), EPERM, EOPNOTSUPP),
        ("xc_monitor_get_capabilities", (), EPERM, None),
        ("xc_set_mem_access", (7, 0, 1), EPERM, EINVAL),
        ("xc_domain_pause", (), EINVAL, None),
        ("xc_hvm_param_get", (28,), EINVAL, EINVAL),
        ("xc_altp2m_set_domain_state", (1,), EOPNOTSUPP, EOPNOTSUPP),
    ],
)
def test_domains_that_are_not_hvm(call: str, arguments: tuple[int, ...], dom0: int, pv: int | None) -> None:
    host = Host()
    assert host.fails(call, 0, *arguments) == dom0
    assert host.fails(call, 9, *arguments) == ESRCH
    if pv is not None:
        assert host.fails(call, 2, *arguments) == pv


def capabilities(host: Host, domid: int = 1) -> set[str]:
    (bits,) = struct.unpack("=I", host.call("xc_monitor_get_capabilities", domid).out)
    return {name for name, bit in CAPABILITIES.items() if bits >> bit & 1}


def test_capabilities_by_release_and_vendor() -> None:
    first = {"write_ctrlreg", "mov_to_msr", "singlestep", "software_breakpoint", "guest_request"}
    assert capabilities(Host(version=1)) == first
    assert capabilities(Host(version=7), 2) == set()
    new = capabilities(Host(version=7, release="4.18"))
    assert {"vmexit", "io_instruction", "inguest_pagefault", *first} <= new
    assert capabilities(Host(version=2, vendor="amd")) == set()
    # 0x1f7b was read on AMD, Xen 4.17: no single-step, no privileged call.
    (amd,) = struct.unpack("=I", Host(vendor="amd").call("xc_monitor_get_capabilities", 1).out)
    assert amd == 0x1F7B


def test_page_permissions_on_amd_and_without_a_ring() -> None:
    host = Host()
    assert host.fails("xc_set_mem_access", 1, 7, 0, 1) == ENODEV
    amd = Host(vendor="amd")
    Monitor(amd)
    assert amd.fails("xc_set_mem_access", 1, 7, 0, 1) == EINVAL
    assert amd.fails("xc_domain_debug_control", 1, 0, 0) == EOPNOTSUPP
    assert amd.fails("xc_monitor_singlestep", 1, 1) == EOPNOTSUPP


def test_page_permission_ranges() -> None:
    host = Host()
    Monitor(host)
    host.call("xc_set_mem_access", 1, 7, 0, MAX_GFN + 1)
    assert host.fails("xc_set_mem_access", 1, 7, 0, MAX_GFN + 2) == EINVAL
    assert host.fails("xc_set_mem_access", 1, 7, 5, 0) == EINVAL
    assert host.fails("xc_set_mem_access", 1, 11, 5, 1) == EINVAL
    host.call("xc_set_mem_access", 1, 5, ALL, 0)
    assert struct.unpack("=I", host.call("xc_get_mem_access", 1, ALL).out) == (5,)
    host.call("xc_set_mem_access", 1, 10, 0x20, 1)
    assert struct.unpack("=I", host.call("xc_get_mem_access", 1, 0x20).out) == (5,), "10 is default"
    assert host.fails("xc_get_mem_access", 1, MAX_GFN + 1) == EINVAL
    assert host.fails("xc_get_mem_access", 1, 0x4500) == ESRCH
    data = struct.pack("=2Q2B", 0x30, 0x40, 1, 3)
    host.call("xc_set_mem_access_multi", 1, 2, data=data)
    assert (host.domain.host.access[0x30], host.domain.host.access[0x40]) == (1, 3)


def test_default_permission_moved_in_4_20() -> None:
    host = Host(release="4.20")
    Monitor(host)
    host.call("xc_set_mem_access", 1, 10, 0x20, 1)
    assert host.domain.host.access[0x20] == 10, "r_pw"
    host.call("xc_set_mem_access", 1, 11, 0x20, 1)
    assert host.domain.host.access[0x20] == 7


def test_altp2m_views() -> None:
    host = Host()
    assert host.fails("xc_altp2m_create_view", 1, 7) == EOPNOTSUPP
    host.call("xc_altp2m_set_domain_state", 1, 1)
    views = [struct.unpack("=H", host.call("xc_altp2m_create_view", 1, 7).out)[0] for _ in range(9)]
    assert views == list(range(1, 10))
    assert host.fails("xc_altp2m_create_view", 1, 7) == EINVAL
    host.call("xc_altp2m_switch_to_view", 1, 3)
    assert host.call("xc_altp2m_get_vcpu_p2m_idx", 1, 0).out == b"\3\0"
    assert host.fails("xc_altp2m_destroy_view", 1, 3) == EBUSY
    assert host.fails("xc_altp2m_switch_to_view", 1, 10) == EINVAL
    host.call("xc_altp2m_switch_to_view", 1, 0)
    host.call("xc_altp2m_destroy_view", 1, 3)
    assert host.fails("xc_altp2m_set_mem_access", 1, 3, 0, 7) == EINVAL
    host.call("xc_altp2m_set_domain_state", 1, 0)
    assert not host.domain.views


def test_altp2m_switched_off_in_the_configuration() -> None:
    host = Host()
    host.domain.params[35] = 0
    assert host.fails("xc_altp2m_set_domain_state", 1, 1) == EINVAL


def test_ring_parameter_missing() -> None:
    for version, code in ((4, ENOSYS), (7, EOPNOTSUPP)):
        host = Host(version=version)
        host.domain.params[28] = 0
        assert host.fails("xc_monitor_enable", 1) == code


def test_event_channel_calls() -> None:
    host = Host()
    monitor = Monitor(host)
    remote = host.domain.ring.channel.port
    bind = ("xenevtchn_bind_interdomain", 1, remote)
    assert host.fails(*bind, client=monitor.evtchn) == EINVAL
    assert host.fails("xenevtchn_bind_interdomain", 1, 999, client=monitor.evtchn) == EINVAL
    host.call("xenevtchn_unbind", monitor.port, client=monitor.evtchn)
    assert host.fails("xenevtchn_notify", monitor.port, client=monitor.evtchn) == ENOTCONN
    assert host.call(*bind, client=monitor.evtchn).value > 0, "Xen's end is unbound again"


def test_resume_by_domctl_claims_to_fail_in_old_releases() -> None:
    for version, code in ((1, EINVAL), (7, None)):
        host = Host([{"do": "guest_request"}], version=version)
        assert host.fails("xc_monitor_resume", 1) == ENODEV
        monitor = Monitor(host)
        host.call("xc_monitor_guest_request", 1, 1, 1)
        host.run()
        monitor.push(monitor.plain(monitor.event().raw), notify=False)
        if code is None:
            host.call("xc_monitor_resume", 1)
        else:
            assert host.fails("xc_monitor_resume", 1) == code
        assert not host.vcpu.stopped


def test_invalid_domid_is_named() -> None:
    host = Host()
    assert host.fails("xc_monitor_disable", 0x7FF4) == ESRCH
    assert host.broken() == ["domid-invalid"]


def test_domctl_of_another_release_is_refused() -> None:
    host = Host()
    Monitor(host)
    domctl = struct.pack("=IIQI", 77, 0x12, 1, 4).ljust(144, b"\0")
    assert host.fails("xencall1", 36, data=domctl) == EACCES


@pytest.mark.parametrize(
    ("version", "release", "size", "hap"),
    [(2, "4.8", 96, 0x200), (2, "4.9", 96, 0x100), (6, "4.14", 104, 0x100), (7, "4.17", 112, 0x100)],
)
def test_domain_info(version: int, release: str, size: int, hap: int) -> None:
    host = Host(version=version, release=release, vcpus=3)
    host.call("xc_domain_pause", 1)

    result = host.call("xc_domain_getinfolist", 1, 1)

    assert (result.value, len(result.out)) == (1, size)
    domid, flags = struct.unpack_from("=HxxI", result.out)
    assert (domid, flags) == (1, 2 | 8 | hap)
    assert struct.unpack_from("=II", result.out, 64) == (3, 2)
    assert result.out[76:92] == host.domain.uuid.bytes
    listed = host.call("xc_domain_getinfolist", 2, 10)
    assert listed.value == 1
    assert struct.unpack_from("=H", listed.out) == (2,)


@pytest.mark.parametrize(("version", "size"), [(6, 104), (7, 112)])
def test_old_domain_info(version: int, size: int) -> None:
    host = Host(version=version)
    host.domain.crash()
    out = host.call("xc_domain_getinfo", 1, 1).out
    assert len(out) == size
    domid, bits, reason = struct.unpack_from("=IxxxxII", out)
    assert (domid, reason) == (1, 3)
    assert bits & 0b1111111 == 0b1000010, "hvm, crashed"
    assert out[80:96] == host.domain.uuid.bytes
