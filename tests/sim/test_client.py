"""The C library and the process behind it, as programs meet them."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from xenintro.errors import UsageError, XenintroError
from xenintro.sim import Simulation

CLIENT = Path(__file__).with_name("client.py")
DEADLINE = 30


def start(simulation: Simulation, code: str, **popen: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, CLIENT, textwrap.dedent(code)],
        env={**os.environ, **simulation.environment},
        stdout=subprocess.PIPE,
        text=True,
        **popen,
    )


def run(simulation: Simulation, code: str) -> str:
    program = start(simulation, code)
    output, _ = program.communicate(timeout=DEADLINE)
    assert program.returncode == 0
    return output.strip()


@pytest.mark.parametrize(
    ("abi", "release"),
    [("vm_event-1-4.6", (4, 6)), ("vm_event-4", (4, 12)), ("vm_event-7-4.22", (4, 22))],
)
def test_release_shows_in_library_and_version(abi: str, release: tuple[int, int]) -> None:
    with Simulation(abi=abi, scenario="idle") as simulation:
        assert (simulation.directory / f"libxenctrl.so.{release[0]}.{release[1]}").exists()
        version = int(run(simulation, "print(xc.xc_version(interface(), 0, None))"))
    assert divmod(version, 1 << 16) == release


def test_same_symbol_takes_other_arguments_in_other_releases() -> None:
    # onchangeonly is the sixth argument up to 4.9; 4.10 put the bitmask before it.
    code = """
        h = interface(); attach(h)
        assert xc.xc_monitor_write_ctrlreg(h, 1, 1, True, True, {last}) == 0
    """
    with Simulation(abi="vm_event-2-4.9", scenario="idle") as old:
        run(old, code.format(last="True"))
        assert old.control("state")["armed"] == ["write_ctrlreg 1"]
    with Simulation(abi="vm_event-3", scenario="idle") as new:
        run(new, code.format(last="ctypes.c_uint64(2**63), True"))
        assert new.control("state")["armed"] == ["write_ctrlreg 1"]


def test_calls_outside_a_simulation_fail_as_without_xen() -> None:
    with Simulation(scenario="idle") as simulation:
        environment = {**os.environ, **simulation.environment}
        del environment["XENINTRO_SIM_SOCKET"]
        code = "print(interface().value, ctypes.get_errno())"
        result = subprocess.run(
            [sys.executable, CLIENT, code], env=environment, capture_output=True, text=True, check=True
        )
    assert result.stdout.split() == ["None", "2"]


def test_monitor_by_hand_from_attach_to_release() -> None:
    code = """
        h = interface()
        page, remote = attach(h)
        e = ctypes.c_void_p(evtchn.xenevtchn_open(None, 0))
        port = evtchn.xenevtchn_bind_interdomain(e, 1, remote)
        assert xc.xc_monitor_guest_request(h, 1, True, True, False) == 0
        answered = 0
        while answered < 100:
            assert evtchn.xenevtchn_pending(e) == port
            evtchn.xenevtchn_unmask(e, port)
            req_prod, = struct.unpack_from("<I", page, 0)
            while answered < req_prod:
                start = 64 + (answered & 7) * 400
                header = struct.unpack_from("<IIII", page, start)
                page[start:start + 400] = struct.pack("<IIII", 7, 1, *header[2:]).ljust(400, b"\\0")
                answered += 1
                struct.pack_into("<I", page, 8, answered)
            assert evtchn.xenevtchn_notify(e, port) == 0
        assert xc.xc_monitor_guest_request(h, 1, False, False, False) == 0
        req_prod, = struct.unpack_from("<I", page, 0)
        assert req_prod in (answered, answered + 1)
        if req_prod > answered:
            start = 64 + (answered & 7) * 400
            page[start + 4:start + 8] = struct.pack("<I", 1)
            struct.pack_into("<I", page, 8, req_prod)
            evtchn.xenevtchn_notify(e, port)
        print(xc.xc_monitor_disable(h, 1), evtchn.xenevtchn_unbind(e, port))
        evtchn.xenevtchn_close(e); xc.xc_interface_close(h)
    """
    with Simulation(scenario="storm") as simulation:
        assert run(simulation, code) == "0 0"
        report = simulation.report()
    assert report["violations"] == []
    assert report["answered"] == report["events"] >= 100


def test_guest_memory_is_mapped_shared() -> None:
    code = """
        h = ctypes.c_void_p(foreign.xenforeignmemory_open(None, 0))
        gfns = (ctypes.c_uint64 * 3)(0x100, 0x4500, 0x101)
        errors = (ctypes.c_int * 3)()
        area = foreign.xenforeignmemory_map(h, 1, 3, 3, gfns, errors)
        page = (ctypes.c_char * 4096).from_address(area)
        page[0x800] = 0x5a
        print(list(errors), page[0:2].hex())
        print(foreign.xenforeignmemory_map(h, 1, 3, 3, gfns, None), ctypes.get_errno())
    """
    with Simulation(scenario="idle") as simulation:
        lines = run(simulation, code).splitlines()
        seen = simulation.control("memory", address=0x100800, length=1)
    assert lines == ["[0, -22, 0] 900f", "None 22"]
    assert seen == {"data": "5a"}


@pytest.mark.parametrize(("domid", "expected"), [(0, -22), (2, -22), (9, -3)], ids=["dom0", "pv", "nobody"])
def test_domains_that_cannot_be_watched(domid: int, expected: int) -> None:
    code = f"""
        port = ctypes.c_uint32()
        print(call(xc.xc_monitor_enable, interface(), {domid}, ctypes.byref(port)))
    """
    with Simulation(scenario="idle") as simulation:
        assert int(run(simulation, code)) == expected


def test_injected_fault() -> None:
    faults = [{"call": "xc_monitor_cpuid", "nth": 2, "errno": "ENOMEM"}]
    code = """
        h = interface(); attach(h)
        print([call(xc.xc_monitor_cpuid, h, 1, on) for on in (True, False, False)])
    """
    with Simulation(scenario="idle", faults=faults) as simulation:
        assert run(simulation, code) == "[0, -12, 0]"


def test_call_that_takes_effect_and_fails_all_the_same() -> None:
    # libxc itself does so when the ring page cannot leave the physmap after the domctl.
    faults = [{"call": "xc_monitor_enable", "errno": "ENOMEM", "after": True}]
    code = """
        h, port = interface(), ctypes.c_uint32()
        print(xc.xc_monitor_enable(h, 1, ctypes.byref(port)), ctypes.get_errno())
        print(call(xc.xc_monitor_enable, h, 1, ctypes.byref(port)), call(xc.xc_monitor_disable, h, 1))
    """
    with Simulation(scenario="idle", faults=faults) as simulation:
        assert run(simulation, code).splitlines() == ["None 12", "-16 0"]


def test_fault_that_kills_the_client() -> None:
    with Simulation(scenario="idle") as simulation:
        simulation.control("fault", fault={"call": "xc_domain_pause", "action": "kill-client"})
        program = start(simulation, "xc.xc_domain_pause(interface(), 1)")
        program.communicate(timeout=DEADLINE)
        assert program.returncode == -signal.SIGKILL
        assert simulation.control("state")["pauses"] == 0


def test_fault_that_hangs() -> None:
    faults = [{"call": "xc_domain_pause", "action": "hang"}]
    with Simulation(scenario="idle", faults=faults) as simulation:
        program = start(simulation, "print('in', flush=True); xc.xc_domain_pause(interface(), 1)")
        assert program.stdout is not None
        assert program.stdout.readline() == "in\n"
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.3)
        program.kill()
        program.communicate()


def test_dead_domain_is_a_zombie_while_its_ring_page_is_mapped() -> None:
    code = """
        import time
        h = interface(); attach(h); print("attached", flush=True)
        sys.stdin.readline()
    """
    with Simulation(scenario="idle") as simulation:
        program = subprocess.Popen(
            [sys.executable, CLIENT, textwrap.dedent(code)],
            env={**os.environ, **simulation.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert program.stdout is not None
        program.stdout.readline()
        simulation.control("destroy")
        assert simulation.control("state")["dying"]
        assert simulation.wait("broken", rule="page-kept", timeout=DEADLINE)
        program.communicate(b"\n", timeout=DEADLINE)
        assert simulation.wait("gone", timeout=DEADLINE)


def test_orders_and_their_errors() -> None:
    with Simulation(vcpus=2, scenario="idle") as simulation:
        assert simulation.wait("idle", timeout=DEADLINE)
        assert len(simulation.control("state")["vcpus"]) == 2
        simulation.control("pause")
        assert simulation.control("state")["pauses"] == 1
        simulation.control("unpause")
        assert simulation.report()["violations"] == []
        assert simulation.control("reboot") == {"domid": 3}
        with pytest.raises(XenintroError, match="cannot dance"):
            simulation.control("dance")
        assert not simulation.wait("events", 1, timeout=0.01)


def test_nobody_listens_and_the_simulator_hardly_works() -> None:
    with Simulation(vcpus=16) as simulation:
        assert simulation.wait("retired", 200, timeout=DEADLINE)
        assert simulation._process is not None
        stat = Path(f"/proc/{simulation._process.pid}/stat")

        def ticks() -> int:
            return sum(map(int, stat.read_text().split()[13:15]))

        before, began = ticks(), time.monotonic()
        simulation.wait("events", 1, timeout=1.0)
        used = (ticks() - before) / os.sysconf("SC_CLK_TCK")
        assert used < 0.4 * (time.monotonic() - began)


def test_ends_with_the_process_that_started_it() -> None:
    code = """
        import os
        from xenintro.sim import Simulation
        simulation = Simulation(scenario="idle")
        print(simulation._process.pid, simulation.directory, flush=True)
        os.kill(os.getpid(), 9)
    """
    root = str(Path(__file__).parents[2])
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    pid, directory = parent.stdout.split()
    deadline = time.monotonic() + DEADLINE
    while _alive(int(pid)) or Path(directory).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_report_is_written_when_it_closes(tmp_path: Path) -> None:
    with Simulation(scenario="idle", report=tmp_path / "report.json"):
        pass
    assert '"stuck_vcpus": []' in (tmp_path / "report.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"abi": "vm_event-77"}, "vm_event-7"),
        ({"abi": "mem_event-4.5"}, ""),
        ({"scenario": "boots"}, "boot"),
        ({"vcpus": 17}, ""),
    ],
)
def test_mistakes_are_told_with_the_nearest_right_word(arguments: dict[str, object], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Simulation(**arguments)  # type: ignore[arg-type]
    assert hint in caught.value.hint


def test_xenstore_knows_names() -> None:
    with Simulation(scenario="idle") as simulation, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(simulation.environment["XENSTORED_PATH"])

        def ask(kind: int, path: str) -> tuple[int, bytes]:
            body = path.encode() + b"\0"
            connection.sendall(struct.pack("=IIII", kind, 7, 0, len(body)) + body)
            answer = connection.recv(4096)
            assert struct.unpack_from("=I", answer, 4) == (7,)
            return struct.unpack_from("=I", answer)[0], answer[16:]

        assert ask(2, "/local/domain/1/name") == (2, b"tiny")
        assert ask(1, "/local/domain") == (1, b"0\x001\x002\0")
        assert ask(2, "/local/domain/9/name") == (16, b"ENOENT\0")
