"""Death of the monitor, of the guest, and what a client leaves behind."""

from __future__ import annotations

import struct

import pytest

from tests.sim.host import Host, Monitor
from xenintro.codec import unpause
from xenintro.response import Response
from xenintro.sim.p2m import N2RWX, RWX, RX, RX2RW

VERSIONS = range(1, 8)
PAGE = 0x400


def watched(vcpus: int = 2, version: int = 7) -> tuple[Host, Monitor]:
    """Every vCPU has an unanswered request."""
    host = Host([{"do": "guest_request"}], vcpus=vcpus, version=version)
    monitor = Monitor(host)
    host.call("xc_monitor_guest_request", 1, 1, 1)
    host.run()
    monitor.requests()
    return host, monitor


@pytest.mark.parametrize("version", VERSIONS)
def test_killed_monitor_leaves_a_frozen_guest_and_a_busy_ring(version: int) -> None:
    host, monitor = watched(version=version)

    monitor.close()
    host.run()

    assert host.machine.report()["stuck_vcpus"] == [0, 1]
    assert host.fails("xc_monitor_enable", 1) == 16
    host.call("xc_monitor_disable", 1)
    assert host.machine.report()["stuck_vcpus"] == [0, 1], "disable unpauses nobody"
    assert {"requests-unanswered", "vcpu-left-frozen"} <= set(host.broken())


@pytest.mark.parametrize("version", VERSIONS)
def test_rescue_brings_the_guest_back(version: int) -> None:
    host, dead = watched(version=version)
    dead.close()
    host.call("xc_monitor_disable", 1)
    if host.machine.release == (4, 6):
        host.call("xc_monitor_guest_request", 1, 0, 0)
    before = host.broken()

    rescuer = Monitor(host)
    rescuer.push(*[unpause(host.interface, vcpu_id) for vcpu_id in range(2)])
    rescuer.disable()
    host.run()

    assert host.machine.report()["stuck_vcpus"] == []
    assert all(vcpu.retired > 4 for vcpu in host.domain.vcpus)
    assert set(host.broken()) == set(before) - {"vcpu-left-frozen"}, "it broke no rule"


def test_requests_after_a_rescue_on_the_same_ring() -> None:
    host, dead = watched()
    dead.close()
    host.call("xc_monitor_disable", 1)
    rescuer = Monitor(host)
    rescuer.push(*[unpause(host.interface, vcpu_id) for vcpu_id in range(2)])

    host.call("xc_monitor_guest_request", 1, 1, 1)
    host.run()

    assert host.domain.ring.free > 6
    assert "rescued-ring-kept" in host.broken()


def test_disable_discards_what_the_vcpu_has_not_applied_yet() -> None:
    host, monitor = watched(vcpus=1)
    event_rip = host.vcpu.regs["rip"]
    start = 64
    raw = bytes(monitor.page[start : start + host.interface.slot_size])
    from xenintro.codec import decode

    event = decode(raw, host.interface)
    monitor.answer(event, Response.set_registers({"rbx": 0x1234}))
    host.call("xc_monitor_guest_request", 1, 0, 0)

    monitor.disable()
    host.run(1)

    assert host.vcpu.regs["rbx"] == 0
    assert event_rip != event.registers.rip
    assert "effects-lost" in host.broken()


def test_traps_left_on() -> None:
    host = Host()
    monitor = Monitor(host)
    host.call("xc_monitor_cpuid", 1, 1)

    monitor.disable()

    assert host.broken() == ["traps-left"]
    assert not host.domain.monitor.armed(), "4.7 and later forget them"


def test_4_6_keeps_traps_after_disable() -> None:
    host = Host(version=1, release="4.6")
    monitor = Monitor(host)
    host.call("xc_monitor_software_breakpoint", 1, 1)

    monitor.disable()

    assert host.domain.monitor.armed() == ["software_breakpoint"]


def test_leftovers_are_named() -> None:
    host = Host()
    monitor = Monitor(host)
    host.call("xc_set_mem_access", 1, RX, PAGE, 2)
    host.call("xc_domain_set_access_required", 1, 1)
    host.call("xc_altp2m_set_domain_state", 1, 1)
    host.call("xc_domain_pause", 1)
    host.call("xc_domain_debug_control", 1, 1, 0)
    monitor.disable()

    assert host.broken() == [
        "access-left",
        "access-required-left",
        "views-left",
        "domain-left-paused",
        "singlestep-left",
    ]


@pytest.mark.parametrize("required", [False, True])
def test_violation_without_a_listener(required: bool) -> None:
    host = Host([{"do": "write", "gfn": PAGE}])
    monitor = Monitor(host)
    host.call("xc_set_mem_access", 1, RX, PAGE, 2)
    host.call("xc_domain_set_access_required", 1, int(required))
    monitor.disable()

    host.run()

    assert (host.domain.shutdown == 3) == required
    assert host.domain.host.access[PAGE] == (RX if required else RWX), "permissions melt away"
    assert host.domain.host.access[PAGE + 1] == RX


@pytest.mark.parametrize(("access", "events"), [(RX2RW, 0), (N2RWX, 1)])
def test_permissions_that_convert_themselves(access: int, events: int) -> None:
    host = Host([{"do": "write", "gfn": PAGE}], rounds=3)
    monitor = Monitor(host)
    host.call("xc_set_mem_access", 1, access, PAGE, 1)

    host.run()

    seen = monitor.events()
    assert len(seen) == events
    assert not any(event.paused for event in seen)
    assert host.vcpu.halted
    assert host.domain.host.access[PAGE] == {RX2RW: 3, N2RWX: RWX}[access]


def test_destroyed_domain() -> None:
    host, monitor = watched()

    host.call("xc_domain_destroy", 1)

    assert host.domain.dying
    assert host.call("xc_monitor_disable", 1).value == 0, "ignored on a dying domain"
    assert host.fails("xc_set_mem_access", 1, 7, PAGE, 1) == 22
    monitor.notify()  # silently dropped
    flags = struct.unpack_from("=I", host.call("xc_domain_getinfolist", 1, 1).out, 4)[0]
    assert flags & 1
    monitor.close()
    host.monitors.clear()
    host.machine.forget(host.domain)
    assert struct.unpack_from("=H", host.call("xc_domain_getinfolist", 1, 1).out)[0] == 2
    assert host.fails("xc_domain_pause", 1) == 3


def test_crashed_domain_keeps_its_ring() -> None:
    host, _monitor = watched()

    host.domain.crash()
    host.run()

    assert host.fails("xc_monitor_enable", 1) == 16
    assert host.domain.stopped


def test_reboot_gives_the_next_domid() -> None:
    host, _monitor = watched()

    fresh = host.machine.reboot(host.domain)

    assert fresh.domid == 3
    assert fresh.uuid == host.domain.uuid
    assert fresh.ring is None


def test_pauses_are_counted() -> None:
    host = Host()
    for _ in range(255):
        host.call("xc_domain_pause", 1)
    assert host.fails("xc_domain_pause", 1) == 75
    for _ in range(255):
        host.call("xc_domain_unpause", 1)
    assert host.fails("xc_domain_unpause", 1) == 22
    assert not host.domain.stopped


def test_paused_guest_does_not_run() -> None:
    host = Host()
    host.call("xc_domain_pause", 1)

    host.run()

    assert host.vcpu.retired == 0
