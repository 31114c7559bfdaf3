"""The ring page and who holds it: the physmap, foreign mappings, a second process that keeps the page."""

from __future__ import annotations

import signal
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.sim.host import Host, Monitor
from tests.sim.test_client import DEADLINE, run, start
from xenintro.sim import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator

RING = 0x4FF2
EBUSY, EINVAL = 16, 22


def map_foreign(host: Host, gfn: int) -> int:
    (frame,) = struct.unpack("=q", host.call("xenforeignmemory_map", 1, 1, data=struct.pack("=Q", gfn)).out)
    return frame


def populate(host: Host, domid: int = 1, gfn: int = RING) -> int:
    """The errno."""
    arguments = ("xc_domain_populate_physmap_exact", domid, 1, 0, 0)
    try:
        host.call(*arguments, data=struct.pack("=Q", gfn))
    except OSError as error:
        return error.errno or 0
    return 0


def test_the_ring_page_leaves_the_physmap_when_the_ring_is_enabled() -> None:
    host = Host()
    before = map_foreign(host, RING)

    Monitor(host)

    assert before == host.domain.ring_frame
    assert map_foreign(host, RING) == -EINVAL
    assert host.fails("xc_get_mem_access", 1, RING) == 3, "ESRCH: a hole"


def test_a_busy_domain_gets_another_page_from_those_who_try() -> None:
    host = Host()
    Monitor(host)

    assert host.fails("xc_monitor_enable", 1) == EBUSY

    assert map_foreign(host, RING) not in (-EINVAL, host.domain.ring_frame)


def test_the_next_ring_gets_the_freed_page_as_it_was_left() -> None:
    host = Host()
    first = Monitor(host)
    frame = host.domain.ring_frame
    first.page[2000:2004] = b"left"
    first.disable()
    assert map_foreign(host, RING) == -EINVAL, "nobody puts it back"

    second = Monitor(host)

    assert host.domain.ring_frame == frame
    assert bytes(second.page[2000:2004]) == b"left"


def test_populate_at_the_memory_limit() -> None:
    host = Host()
    host.domain.pages.spare = 0
    monitor = Monitor(host)

    assert populate(host) == EBUSY, "the ring has the page"
    monitor.disable()
    assert populate(host) == 0, "it is free again"
    assert populate(host) == EBUSY
    assert populate(host, domid=9) == EBUSY, "libxc does not say ESRCH"


def test_enable_at_the_memory_limit() -> None:
    host = Host()
    host.domain.pages.spare = 0
    host.domain.pages.take(RING)

    assert host.fails("xc_monitor_enable", 1) == EBUSY


def test_a_dying_domain_gets_no_pages() -> None:
    host = Host()
    Monitor(host)
    host.call("xc_domain_destroy", 1)

    assert populate(host) == EBUSY
    assert host.fails("xc_monitor_enable", 1) == EBUSY


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(vcpus=12, scenario="storm") as simulation:
        yield simulation


KEEPER = """
    h = ctypes.c_void_p(foreign.xenforeignmemory_open(None, 0))
    gfn, error = ctypes.c_uint64(0x4ff2), ctypes.c_int()
    page = foreign.xenforeignmemory_map(h, 1, 3, 1, ctypes.byref(gfn), ctypes.byref(error))
    assert page and error.value == 0
    page = (ctypes.c_char * 4096).from_address(page)
    print("mapped", flush=True)
"""

#: Answers everything through the kept page once the monitor, whose port it reads, is dead.
TAKES_OVER = (
    KEEPER
    + """
    remote, rsp_prod = map(int, sys.stdin.readline().split())
    x = interface()
    assert xc.xc_domain_pause(x, 1) == 0
    assert xc.xc_monitor_guest_request(x, 1, False, False, False) == 0
    assert xc.xc_domain_unpause(x, 1) == 0
    e = ctypes.c_void_p(evtchn.xenevtchn_open(None, 0))
    port = evtchn.xenevtchn_bind_interdomain(e, 1, remote)
    assert port > 0
    answered = 0
    while answered < 12:  # a free slot lets a vCPU that sleeps in Xen post its request
        req_prod, = struct.unpack_from("<I", page, 0)
        while rsp_prod < req_prod:
            start = 64 + (rsp_prod & 7) * 400
            header = struct.unpack_from("<IIII", page, start)
            page[start:start + 400] = struct.pack("<IIII", 7, 1, *header[2:]).ljust(400, b"\\0")
            rsp_prod += 1
            answered += 1
        struct.pack_into("<I", page, 8, rsp_prod)
        assert evtchn.xenevtchn_notify(e, port) == 0
    print(answered, xc.xc_monitor_disable(x, 1))
"""
)

MONITOR = """
    h = interface()
    page, remote = attach(h)
    e = ctypes.c_void_p(evtchn.xenevtchn_open(None, 0))
    port = evtchn.xenevtchn_bind_interdomain(e, 1, remote)
    assert xc.xc_monitor_guest_request(h, 1, True, True, False) == 0
    print(remote, flush=True)
    sys.stdin.readline()
"""


def beside(simulation: Simulation, code: str) -> subprocess.Popen[str]:
    """A program that is told what to do next, and has said its first line."""
    return start(simulation, code, stdin=subprocess.PIPE)


def said(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def test_who_has_mapped_the_ring_page_before_takes_over_from_a_killed_monitor(
    simulation: Simulation,
) -> None:
    keeper = beside(simulation, TAKES_OVER)
    assert said(keeper) == "mapped"
    monitor = beside(simulation, MONITOR)
    remote = said(monitor)
    assert simulation.wait("events", 8, timeout=DEADLINE)
    assert simulation.wait("stuck", 12, timeout=DEADLINE)
    assert sum(vcpu["waiting"] for vcpu in simulation.control("state")["vcpus"]) == 4
    monitor.send_signal(signal.SIGKILL)
    monitor.communicate(timeout=DEADLINE)

    output, _ = keeper.communicate(f"{remote} 0\n", timeout=DEADLINE)

    answered, disabled = map(int, output.split())
    assert (answered, disabled) == (12, 0)
    report = simulation.report()
    assert report["stuck_vcpus"] == []
    assert report["answered"] == report["events"]
    assert report["violations"] == []
    before = max(vcpu["retired"] for vcpu in simulation.control("state")["vcpus"])
    assert simulation.wait("retired", before + 100, timeout=DEADLINE)


def test_a_bound_port_is_not_free_until_its_owner_is_gone(simulation: Simulation) -> None:
    monitor = beside(simulation, MONITOR)
    remote = said(monitor)
    binds = f"""
        e = ctypes.c_void_p(evtchn.xenevtchn_open(None, 0))
        print(call(evtchn.xenevtchn_bind_interdomain, e, 1, {remote}))
    """
    assert int(run(simulation, binds)) == -EINVAL
    monitor.kill()
    monitor.communicate()
    assert int(run(simulation, binds)) > 0
    assert int(run(simulation, binds)) > 0, "and again"


def test_resume_consumes_responses_without_an_event_channel(simulation: Simulation) -> None:
    code = """
        h = interface(); page, remote = attach(h)
        assert xc.xc_monitor_guest_request(h, 1, True, True, False) == 0
        while struct.unpack_from("<I", page, 0)[0] < 8: pass
        assert xc.xc_monitor_guest_request(h, 1, False, False, False) == 0
        for slot in range(8):
            start = 64 + slot * 400
            header = struct.unpack_from("<IIII", page, start)
            page[start:start + 400] = struct.pack("<IIII", 7, 1, *header[2:]).ljust(400, b"\\0")
        struct.pack_into("<I", page, 8, 8)
        print(xc.xc_monitor_resume(h, 1))
    """
    assert run(simulation, code) == "0"
    assert simulation.report()["answered"] == 8


@pytest.mark.parametrize("gfn", [0x100, RING])
def test_any_mapped_page_keeps_a_dead_domain(simulation: Simulation, gfn: int) -> None:
    keeper = beside(simulation, KEEPER.replace("0x4ff2", hex(gfn)) + "    sys.stdin.readline()\n")
    assert said(keeper) == "mapped"
    simulation.control("destroy")
    assert not simulation.wait("gone", timeout=0.3)
    keeper.communicate("\n", timeout=DEADLINE)
    assert simulation.wait("gone", timeout=DEADLINE)


def test_a_kept_page_is_not_given_out_again(simulation: Simulation) -> None:
    keeper = beside(simulation, KEEPER + "    sys.stdin.readline()\n")
    assert said(keeper) == "mapped"
    session = """
        h = interface(); page, remote = attach(h)
        print(page[2000:2004]); page[2000:2004] = b"left"
        assert xc.xc_monitor_disable(h, 1) == 0
    """
    empty, left = "b'\\x00\\x00\\x00\\x00'", "b'left'"
    assert [run(simulation, session) for _ in range(3)] == [empty, empty, left], "the first is kept"
    keeper.communicate("\n", timeout=DEADLINE)
