from __future__ import annotations

import errno
import inspect
from pathlib import Path

import pytest
from cffi import FFI

from tests.contract.fake_xen import FakeXen
from xenintro.errors import (
    DomainBusyError,
    NoSuchDomainError,
    NotSupportedError,
    NoXenError,
    UsageError,
    XenCallError,
)
from xenintro.xen.xc import NEW_PAGES, VcpuInfo, Xc

#: Every method that takes a domain, with arguments that are otherwise fine.
METHODS = {
    "pause": (),
    "unpause": (),
    "maximum_gpfn": (),
    "hvm_param": (28,),
    "populate": (0x4FF2,),
    "map_page": (0x4FF2,),
    "vcpu_info": (0,),
    "set_access_required": (False,),
    "debug_control": (0, False),
    "inject_trap": (0, 3, 6),
    "monitor_enable": (),
    "monitor_disable": (),
    "monitor_resume": (),
    "capabilities": (),
    "write_ctrlreg": (1, True, True),
    "mov_to_msr": (0xC0000082, True),
    "singlestep": (True,),
    "software_breakpoint": (True,),
    "guest_request": (True, True),
    "debug_exceptions": (True, True),
    "cpuid": (True,),
    "privileged_call": (True,),
    "descriptor_access": (True,),
    "emul_unimplemented": (True,),
    "inguest_pagefault": (True,),
    "vmexit": (True, False),
    "io": (True,),
    "set_mem_access": ("rw", 0),
    "set_mem_access_multi": ([(0, "rw")],),
    "get_mem_access": (0,),
    "altp2m_state": (),
    "set_altp2m_state": (True,),
    "create_view": (),
    "destroy_view": (1,),
    "switch_to_view": (1,),
    "set_view_access": (1, 0, "rw"),
    "change_gfn": (1, 0, 0),
}


def store(value):
    """An answer that writes through the last argument, as most calls with a result do."""

    def answer(*args):
        args[-1][0] = value
        return 0

    return answer


@pytest.mark.parametrize("method", METHODS)
def test_no_call_is_made_for_a_number_that_no_domain_has(method):
    xen = FakeXen((4, 22))
    xc = xen.xc()
    for domid in (-1, 0x7FF0, 0x7FF4, 0x7FFF, 1 << 32):
        with pytest.raises(NoSuchDomainError) as caught:
            getattr(xc, method)(domid, *METHODS[method])
        assert caught.value.exit_code == 4
    assert xen.calls == []


@pytest.mark.parametrize("method", METHODS)
def test_no_call_is_made_for_the_own_domain(method):
    xen = FakeXen((4, 22))
    for own in (0, 7):
        xc = xen.xc(own_domid=own)
        with pytest.raises(UsageError, match="runs in"):
            getattr(xc, method)(own, *METHODS[method])
    assert xen.calls == []


@pytest.mark.parametrize("method", METHODS)
def test_every_other_number_is_passed_on(method):
    xen = FakeXen((4, 22))
    xc = xen.xc()
    for domid in (1, 0x7FEF):
        getattr(xc, method)(domid, *METHODS[method])
        assert xen.calls[-1][1] == domid


def test_every_method_about_a_domain_is_in_the_list():
    methods = {
        name
        for name, function in inspect.getmembers(Xc, inspect.isfunction)
        if not name.startswith("_") and "domid" in inspect.signature(function).parameters
    }
    assert methods == set(METHODS)


def test_close_is_done_once():
    xen = FakeXen()
    with xen.xc() as xc:
        pass
    xc.close()
    assert xen.calls == [("xc_interface_close",)]


def test_a_handle_that_does_not_open_says_why():
    xen = FakeXen()
    xen.answers["xc_interface_open"] = (0, errno.EACCES)
    with pytest.raises(NoXenError, match="permission denied"):
        xen.xc()


@pytest.mark.parametrize(
    ("release", "call"),
    [
        ((4, 6), ("xc_monitor_write_ctrlreg", 5, 1, True, False, True)),
        ((4, 9), ("xc_monitor_write_ctrlreg", 5, 1, True, False, True)),
        ((4, 10), ("xc_monitor_write_ctrlreg", 5, 1, True, False, 0, True)),
        ((4, 22), ("xc_monitor_write_ctrlreg", 5, 1, True, False, 0, True)),
    ],
)
def test_write_ctrlreg_by_release(release, call):
    xen = FakeXen(release)
    xen.xc().write_ctrlreg(5, 1, True, False, onchangeonly=True)
    assert xen.calls == [call]


@pytest.mark.parametrize(
    ("release", "call"),
    [
        ((4, 6), ("xc_monitor_mov_to_msr", 5, True, True)),
        ((4, 7), ("xc_monitor_mov_to_msr", 5, True, True)),
        ((4, 8), ("xc_monitor_mov_to_msr", 5, 0xC0000082, True)),
        ((4, 10), ("xc_monitor_mov_to_msr", 5, 0xC0000082, True)),
        ((4, 11), ("xc_monitor_mov_to_msr", 5, 0xC0000082, True, False)),
    ],
)
def test_mov_to_msr_by_release(release, call):
    xen = FakeXen(release)
    xen.xc().mov_to_msr(5, 0xC0000082, True)
    assert xen.calls == [call]


def test_the_one_switch_for_all_msrs_is_on_while_any_msr_is_wanted():
    xen = FakeXen((4, 7))
    xc = xen.xc()
    xc.mov_to_msr(5, 0xC0000082, False)  # left on by a dead monitor
    xc.mov_to_msr(5, 0xC0000082, True)
    xc.mov_to_msr(5, 0xC0000081, True)
    xc.mov_to_msr(6, 0xC0000081, True)
    xc.mov_to_msr(5, 0xC0000082, False)
    xc.mov_to_msr(5, 0xC0000081, False)
    assert [(domid, enable) for _, domid, enable, _ in xen.calls] == [
        (5, False),
        (5, True),
        (6, True),
        (5, False),
    ]


def test_an_msr_that_could_not_be_switched_on_is_not_counted():
    xen = FakeXen((4, 7))
    xc = xen.xc()
    xen.answers["xc_monitor_mov_to_msr"] = (-1, errno.EOPNOTSUPP)
    for _ in range(2):
        with pytest.raises(NotSupportedError):
            xc.mov_to_msr(5, 0xC0000082, True)
    assert len(xen.calls) == 2


@pytest.mark.parametrize(
    ("release", "method", "args", "needs"),
    [
        ((4, 9), "write_ctrlreg", (2, True, True, 0x80), "bitmask .* needs Xen 4.10"),
        ((4, 9), "guest_request", (True, True, True), "allow_userspace .* needs Xen 4.10"),
        ((4, 10), "mov_to_msr", (0x174, True, True), "onchangeonly .* needs Xen 4.11"),
        ((4, 7), "mov_to_msr", (0x174, True, True), "onchangeonly .* needs Xen 4.11"),
        ((4, 7), "cpuid", (True,), "xc_monitor_cpuid needs Xen 4.8"),
        ((4, 17), "io", (True,), "xc_monitor_io needs Xen 4.18"),
        ((4, 7), "set_mem_access_multi", ([(0, "rw")],), "xc_set_mem_access_multi needs Xen 4.8"),
        ((4, 19), "set_mem_access", ("r_pw", 0), "4.19 has no page permission 'r_pw'"),
    ],
)
def test_what_a_release_cannot_express_is_refused_not_ignored(release, method, args, needs):
    xen = FakeXen(release)
    with pytest.raises(NotSupportedError, match=needs):
        getattr(xen.xc(), method)(5, *args)
    assert xen.calls == []


@pytest.mark.parametrize(
    ("release", "value"), [((4, 6), 10), ((4, 19), 10), ((4, 20), 11), ((4, 22), 11), ((4, 23), 11)]
)
def test_default_access_is_the_number_of_the_release(release, value):
    xen = FakeXen(release)
    xc = xen.xc()
    xc.set_mem_access(5, "default", NEW_PAGES, 0)
    xc.create_view(5)
    assert xen.calls[0] == ("xc_set_mem_access", 5, value, NEW_PAGES, 0)
    assert xen.calls[1][:3] == ("xc_altp2m_create_view", 5, value)


@pytest.mark.parametrize("access", ["rwz", "", -1, 12])
def test_a_permission_that_does_not_exist_is_a_usage_error(access):
    with pytest.raises(UsageError, match="not a page permission"):
        FakeXen((4, 22)).xc().set_mem_access(5, access, 0)


def test_page_permissions_are_read_and_written_by_name():
    xen = FakeXen((4, 20))
    xc = xen.xc()
    xen.answers["xc_get_mem_access"] = store(10)
    assert xc.get_mem_access(5, 0x10) == "r_pw"
    written = []
    xen.answers["xc_set_mem_access_multi"] = lambda _, domid, access, gfns, nr: (
        written.extend(zip(list(access[0:nr]), list(gfns[0:nr]), strict=True)) or 0
    )
    xc.set_mem_access_multi(5, [(0x10, "rw"), (0x20, 7)])
    assert written == [(3, 0x10), (7, 0x20)]


def test_results_come_back_as_numbers():
    xen = FakeXen()
    xc = xen.xc()
    xen.answers |= {
        "xc_domain_maximum_gpfn": store(0xFFFFF),
        "xc_monitor_get_capabilities": store(0x7F),
        "xc_hvm_param_get": store(1 << 63),
        "xc_altp2m_get_domain_state": store(True),
        "xc_altp2m_create_view": store(3),
    }
    assert xc.maximum_gpfn(5) == 0xFFFFF
    assert xc.capabilities(5) == 0x7F
    assert xc.hvm_param(5, 28) == 1 << 63
    assert xc.altp2m_state(5) is True
    assert xc.create_view(5, "rwx") == 3


def test_vcpu_info():
    xen = FakeXen()

    def answer(handle, domid, vcpu, info):
        info.online, info.running, info.cpu_time, info.cpu = 1, 1, 123456789, 2
        return 0

    xen.answers["xc_vcpu_getinfo"] = answer
    assert xen.xc().vcpu_info(5, 1) == VcpuInfo(True, False, True, 123456789, 2)


@pytest.mark.parametrize(
    ("release", "vector_and_type"), [((4, 8), (3, 6)), ((4, 9), (3, 6)), ((4, 22), (3, 6))]
)
def test_inject_trap(release, vector_and_type):
    xen = FakeXen(release)
    xen.xc().inject_trap(5, 1, *vector_and_type, insn_len=1)
    assert xen.calls == [("xc_hvm_inject_trap", 5, 1, 3, 6, 0xFFFFFFFF, 1, 0)]


def test_single_step_is_off_or_on():
    xen = FakeXen()
    xc = xen.xc()
    xc.debug_control(5, 2, False)
    xc.debug_control(5, 2, True)
    assert xen.calls == [("xc_domain_debug_control", 5, 0, 2), ("xc_domain_debug_control", 5, 1, 2)]


def test_monitor_enable_gives_the_address_and_the_port():
    xen = FakeXen()
    xen.answers["xc_monitor_enable"] = lambda _, domid, port: store(42)(port) or 0x7F0000001000
    assert xen.xc().monitor_enable(5) == (0x7F0000001000, 42)


def test_a_ring_that_libxc_could_not_finish_is_taken_back():
    xen = FakeXen()
    xen.answers["xc_monitor_enable"] = lambda _, domid, port: (store(42)(port), errno.ENOMEM)
    xen.answers["xc_monitor_disable"] = (-1, errno.EINVAL)
    with pytest.raises(XenCallError) as caught:
        xen.xc().monitor_enable(5)
    assert caught.value.errno == errno.ENOMEM
    assert ("xc_monitor_disable", 5) in xen.calls


def test_the_ring_of_another_agent_is_left_alone():
    xen = FakeXen()
    xen.answers["xc_monitor_enable"] = (0, errno.EBUSY)
    with pytest.raises(DomainBusyError, match="domain 5 is busy") as caught:
        xen.xc().monitor_enable(5)
    assert "xenintro rescue --domid 5" in caught.value.hint
    assert [call[0] for call in xen.calls] == ["xc_monitor_enable"]


def test_a_page_that_is_not_there_cannot_be_mapped():
    xen = FakeXen()
    xen.answers["xc_map_foreign_range"] = (0, errno.EINVAL)
    with pytest.raises(XenCallError) as caught:
        xen.xc().map_page(5, 0x4FF2)
    assert (caught.value.call, caught.value.errno) == ("xc_map_foreign_range", errno.EINVAL)
    assert xen.calls == [("xc_map_foreign_range", 5, 4096, 3, 0x4FF2)]


def test_populate_asks_for_one_page_behind_the_gfn():
    xen = FakeXen()
    asked = []
    xen.answers["xc_domain_populate_physmap_exact"] = lambda *args: (
        asked.append((*args[1:5], args[5][0])) or 0
    )
    xen.xc().populate(5, 0x4FF2)
    assert asked == [(5, 1, 0, 0, 0x4FF2)]


def test_unmap_page_unmaps():
    ffi = FFI()
    ffi.cdef("void *mmap(void *, size_t, int, int, int, long);")
    private_anonymous = 0x22
    page = ffi.dlopen(None).mmap(ffi.NULL, 4096, 1, private_anonymous, -1, 0)
    address = int(ffi.cast("uintptr_t", page))
    FakeXen().xc().unmap_page(address)
    starts = [line.split("-")[0] for line in Path("/proc/self/maps").read_text().splitlines()]
    assert f"{address:x}" not in starts


def test_unmapping_what_is_no_page_is_an_error():
    with pytest.raises(XenCallError) as caught:
        FakeXen().xc().unmap_page(1)
    assert (caught.value.call, caught.value.errno) == ("munmap", errno.EINVAL)


def test_version_is_number_and_suffix():
    xen = FakeXen()

    def answer(handle, command, room):
        if command == 0:
            return 4 << 16 | 17
        library.ffi.memmove(room, b".7-pre\0garbage", 14)
        return 0

    xc = xen.xc()
    library = xc.library
    xen.answers["xc_version"] = answer
    assert xc.version() == "4.17.7-pre"


@pytest.mark.parametrize(
    ("release", "version"),
    [((4, 6), 1), ((4, 7), 1), ((4, 8), 2), ((4, 9), 2), ((4, 10), 2), ((4, 11), 3), ((4, 12), 4)],
)
def test_vm_event_version_is_known_where_it_cannot_be_asked(release, version):
    assert FakeXen(release).xc().vm_event_version() == version


def test_vm_event_version_is_asked_where_it_can_be():
    xen = FakeXen((4, 13))
    xen.answers["xc_vm_event_get_version"] = 5
    assert xen.xc().vm_event_version() == 5


@pytest.mark.parametrize("release", [(4, 6), (4, 12)])
def test_resume_says_that_it_failed_when_it_did_not(release):
    xen = FakeXen(release)
    xen.answers["xc_monitor_resume"] = (-1, errno.EINVAL)
    xen.xc().monitor_resume(5)
    assert xen.calls == [("xc_monitor_resume", 5)]
    xen.answers["xc_monitor_resume"] = (-1, errno.ENODEV)
    with pytest.raises(XenCallError, match="cannot answer the vCPUs of domain 5"):
        xen.xc().monitor_resume(5)
