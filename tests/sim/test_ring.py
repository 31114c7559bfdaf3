"""The ring under pressure, and answers that nobody should send."""

from __future__ import annotations

import struct

import pytest

from tests.sim.host import Host, Monitor
from xenintro.abi import Flag
from xenintro.codec import encode
from xenintro.response import Response

REQUEST = [{"do": "guest_request"}]
VERSIONS = range(1, 8)


def requests_from(
    vcpus: int, *, sync: bool = True, version: int = 7, rounds: int = 0
) -> tuple[Host, Monitor]:
    host = Host(REQUEST, vcpus=vcpus, version=version, rounds=rounds)
    monitor = Monitor(host)
    host.call("xc_monitor_guest_request", 1, 1, int(sync))
    host.run()
    return host, monitor


def raw_response(host: Host, vcpu_id: int, *, version: int | None = None, reason: int = 8) -> bytes:
    header = (version or host.interface.version, 1, reason, vcpu_id)
    return struct.pack("<IIII", *header).ljust(host.interface.slot_size, b"\0")


def waiting(host: Host) -> list[int]:
    return [vcpu.vcpu_id for vcpu in host.domain.vcpus if vcpu.waiting]


def blocked(host: Host) -> list[int]:
    return [vcpu.vcpu_id for vcpu in host.domain.vcpus if vcpu.ring_blocked]


@pytest.mark.parametrize("version", VERSIONS)
def test_ninth_vcpu_waits_for_a_slot_and_gets_the_first_free_one(version: int) -> None:
    host, monitor = requests_from(12, version=version, rounds=1)
    events = monitor.events()
    assert [event.vcpu_id for event in events] == list(range(8))
    assert waiting(host) == [8, 9, 10, 11]

    monitor.answer(events[3])
    host.run()

    assert waiting(host) == [9, 10, 11]
    assert monitor.event().vcpu_id == 8
    assert host.machine.events == 9
    assert host.fails("xc_monitor_disable", 1) == 16, "EBUSY while a vCPU sleeps on the ring"
    assert not host.domain.monitor.armed(), "the traps are gone all the same"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_event_of_sixteen_vcpus_is_delivered(version: int) -> None:
    host, monitor = requests_from(16, version=version, rounds=5)
    answered = 0
    for _ in range(400):
        events = monitor.events()
        monitor.push(*[encode(event, Response.plain()) for event in events])
        answered += len(events)
        host.run()

    assert answered == host.machine.answered == 16 * 5
    # Up to 4.8 a vCPU is woken only while fewer run than slots are free: in the end, never.
    assert bool(blocked(host)) == (host.machine.release < (4, 9))


@pytest.mark.parametrize("vcpus", [7, 8])
def test_asynchronous_events_block_guests_of_eight_vcpus(vcpus: int) -> None:
    host = Host(REQUEST, vcpus=vcpus, rounds=1)
    monitor = Monitor(host)
    host.call("xc_monitor_guest_request", 1, 1, 0)
    host.domain.vcpus[0].budget = 100

    host.domain.vcpus[0].run()

    event = monitor.event()
    assert not event.paused
    assert blocked(host) == ([0] if vcpus == 8 else [])
    assert host.domain.vcpus[0].halted == (vcpus == 7)
    monitor.answer(event)
    assert not blocked(host)
    assert host.broken() == ["ring-left", "traps-left"][:1]


def test_no_vcpu_starves_for_a_slot() -> None:
    host, monitor = requests_from(16)
    seen: set[int] = set()
    for _ in range(10):
        for event in monitor.events():
            seen.add(event.vcpu_id)
            monitor.answer(event)
        host.machine.turn()

    assert seen == set(range(16))


def test_asynchronous_slots_run_out_without_answers() -> None:
    host, monitor = requests_from(1, sync=False)

    assert len(monitor.requests()) == 8
    assert blocked(host) == [0]


def test_freed_slots_go_to_waiting_vcpus_before_blocked_ones() -> None:
    host, monitor = requests_from(10, sync=False)
    before = len(waiting(host)), len(blocked(host))
    assert all(before)

    monitor.answer(monitor.events()[0])

    assert (len(waiting(host)), len(blocked(host))) == (before[0] - 1, before[1])


def test_request_of_another_vcpu_wakes_a_blocked_one() -> None:
    host, _monitor = requests_from(8, sync=False, rounds=1)

    # vm_event_put_request releases its reservation, which kicks the blocked ones while a slot is free.
    assert blocked(host) == [6, 7]


def test_disable_wakes_blocked_vcpus() -> None:
    host = Host(REQUEST, vcpus=8)
    monitor = Monitor(host)
    host.call("xc_monitor_guest_request", 1, 1, 0)
    host.vcpu.budget = 10
    host.vcpu.run()
    assert blocked(host) == [0]

    monitor.disable()

    assert not host.vcpu.stopped
    assert "requests-unanswered" in host.broken()


@pytest.mark.parametrize("version", VERSIONS)
def test_response_of_another_version_is_dropped(version: int) -> None:
    host, monitor = requests_from(1, version=version)
    monitor.requests()

    monitor.push(raw_response(host, 0, version=version + 1))

    assert host.vcpu.stopped
    assert host.domain.ring.free == 8
    assert "wrong-version" in host.broken()
    assert host.machine.answered == 0


def test_response_for_no_vcpu() -> None:
    host, monitor = requests_from(1)

    monitor.push(raw_response(host, 1))

    assert host.broken() == ["no-such-vcpu", "ring-left"]


@pytest.mark.parametrize("version", VERSIONS)
def test_second_answer_to_a_request(version: int) -> None:
    host, monitor = requests_from(2, version=version)
    first, _second = monitor.events()

    monitor.push(monitor.plain(first.raw), monitor.plain(first.raw))

    assert "answered-twice" in host.broken()
    assert host.domain.vcpus[1].stopped, "the slot of its answer is used up"
    assert not host.domain.vcpus[0].stopped


def test_more_responses_than_requests() -> None:
    host, monitor = requests_from(1)
    monitor.requests()

    monitor.push(raw_response(host, 0), raw_response(host, 0))

    assert "beyond-requests" in host.broken()
    assert host.domain.ring.free == 9


def test_runaway_rsp_prod_does_not_hang_the_simulator() -> None:
    host, monitor = requests_from(1)

    monitor.words[2] = 0x80000000
    monitor.notify()

    assert "beyond-requests" in host.broken()


def test_wrong_reason() -> None:
    host, monitor = requests_from(1)

    monitor.push(raw_response(host, 0, reason=4))

    assert "wrong-reason" in host.broken()


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (Flag.DENY, "flag-ignored"),
        (Flag.EMULATE, "flag-ignored"),
        (Flag.EMULATE_NOWRITE, "flag-ignored"),
        (Flag.ALTERNATE_P2M, "flag-ignored"),
        (Flag.FAST_SINGLESTEP, "flag-ignored"),
        (Flag.FOREIGN, "request-flag-echoed"),
        (Flag.NESTED_P2M, "request-flag-echoed"),
        (1 << 20, "flag-undefined"),
        (Flag.SET_REGISTERS | Flag.SET_EMUL_INSN_DATA, "registers-and-emulation-data"),
    ],
)
def test_flags_that_do_nothing_here(flags: int, rule: str) -> None:
    host, monitor = requests_from(1)
    request = monitor.event()

    raw = bytearray(encode(request, Response.set_registers({})))
    struct.pack_into("<I", raw, 4, 1 | int(flags))
    monitor.push(bytes(raw))

    assert rule in host.broken()


@pytest.mark.parametrize(
    ("flag", "since"),
    [
        (Flag.SET_REGISTERS, "4.7"),
        (Flag.GET_NEXT_INTERRUPT, "4.9"),
        (Flag.FAST_SINGLESTEP, "4.14"),
        (Flag.RESET_VMTRACE, "4.15"),
        (Flag.RESET_FORK_STATE, "4.17"),
    ],
)
def test_flag_that_came_later(flag: Flag, since: str) -> None:
    before = {
        "4.7": (1, "4.6"),
        "4.9": (2, "4.8"),
        "4.14": (5, "4.13"),
        "4.15": (6, "4.14"),
        "4.17": (7, "4.16"),
    }
    version, release = before[since]
    host = Host(REQUEST, version=version, release=release)
    monitor = Monitor(host)
    host.call("xc_monitor_guest_request", 1, 1, 1)
    host.run()
    request = monitor.event()

    raw = bytearray(monitor.plain(request.raw))
    struct.pack_into("<I", raw, 4, 1 | int(flag))
    monitor.push(bytes(raw))

    assert "flag-undefined" in host.broken()


def test_flags_on_an_asynchronous_event() -> None:
    host, monitor = requests_from(1, sync=False, rounds=1)
    request = monitor.event()

    monitor.push(encode(request, Response.single_step()))

    assert "flag-ignored" in host.broken()
    assert not host.vcpu.single_step


def test_payload_that_xen_reads_back() -> None:
    host = Host([{"do": "write", "gfn": 0x400}])
    monitor = Monitor(host)
    host.call("xc_set_mem_access", 1, 1, 0x400, 1)
    host.run()
    raw = bytearray(encode(monitor.event(), Response.emulate()))
    raw[24:56] = bytes(32)

    monitor.push(bytes(raw))

    assert "payload-not-echoed" in host.broken()


def test_vcpu_paused_withheld_holds_the_vcpu() -> None:
    host, monitor = requests_from(1)
    request = monitor.event()
    raw = bytearray(monitor.plain(request.raw))
    struct.pack_into("<I", raw, 4, 0)

    monitor.push(bytes(raw))

    assert host.vcpu.stopped
    assert host.machine.report()["stuck_vcpus"] == [0]


def test_ring_must_be_initialised_before_a_trap() -> None:
    host = Host(REQUEST)
    Monitor(host, init=False)

    host.call("xc_monitor_guest_request", 1, 1, 1)

    assert "ring-not-initialised" in host.broken()


def test_stale_indices_of_the_last_session_must_be_reset() -> None:
    host, monitor = requests_from(1)
    monitor.answer(monitor.event())
    host.call("xc_monitor_guest_request", 1, 0, 0)
    monitor.disable()

    again = Monitor(host, init=False)
    assert bytes(again.page[:4]) != bytes(4), "the heap gives back the same page, and nobody cleared it"
    host.call("xc_monitor_guest_request", 1, 1, 1)

    assert "ring-not-initialised" in host.broken()


def test_trap_before_the_ring() -> None:
    host = Host(REQUEST)

    host.call("xc_monitor_guest_request", 1, 1, 1)

    assert "trap-before-ring" in host.broken()


@pytest.mark.parametrize(
    ("release", "outcome"), [("4.7", "spins"), ("4.10", "crashes"), ("4.13", "delivered")]
)
def test_breakpoint_trap_without_a_ring(release: str, outcome: str) -> None:
    version = {"4.7": 1, "4.10": 2, "4.13": 5}[release]
    host = Host([{"do": "int3"}], version=version, release=release, rounds=1)
    host.call("xc_monitor_software_breakpoint", 1, 1)

    host.run()

    crashed = host.domain.shutdown is not None
    spins = not crashed and not host.vcpu.halted
    assert {"spins": spins, "crashes": crashed, "delivered": host.vcpu.traps == {3: 1}}[outcome]


def test_port_that_is_read_and_not_unmasked() -> None:
    host, monitor = requests_from(1)
    device = monitor.evtchn.device
    assert device is not None
    assert len(device.far.recv(4)) == 4
    for _ in range(5):
        monitor.push(raw_response(host, 0))
        host.run()

    assert "not-unmasked" in host.broken()
    device.far.setblocking(False)
    with pytest.raises(BlockingIOError):
        device.far.recv(4)


def test_binding_always_rings_once() -> None:
    host = Host(REQUEST)
    monitor = Monitor(host)

    assert monitor.evtchn.device is not None
    monitor.evtchn.device.far.setblocking(False)
    assert monitor.evtchn.device.far.recv(4) == struct.pack("=I", monitor.port)
