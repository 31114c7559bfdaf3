"""Faults: what a spec may say, and that each action meets exactly its call."""

from __future__ import annotations

import errno
import signal
import subprocess

import pytest

from tests.sim.test_client import DEADLINE, run, start
from xenintro.errors import UsageError, XenintroError
from xenintro.sim import Simulation
from xenintro.sim.calls import ARGUMENTS
from xenintro.sim.errnos import ERRNOS, LOCAL
from xenintro.sim.faults import parse_fault


def test_every_call_has_its_errnos() -> None:
    closing = {call for call in ERRNOS if call.endswith("_close")}
    assert set(ERRNOS) - LOCAL - closing == set(ARGUMENTS)
    for names in ERRNOS.values():
        assert names
        assert all(hasattr(errno, name) for name in names)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("call=xc_monitor_cpuidd", "xc_monitor_cpuid"),
        ("call=xc_monitor_cpuid,errno=ENOMEN", "ENOMEM"),
        ("call=xc_monitor_cpuid,action=hangs", "hang"),
        ("call=xc_monitor_cpuid,nht=2", "nth"),
        ("errno=ENOMEM", "for instance"),
        ("xc_monitor_cpuid", "for instance"),
        ("call=xc_monitor_cpuid,nth=two", "for instance"),
    ],
)
def test_mistakes_in_a_spec(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault(text)
    assert hint in caught.value.hint


def test_specs() -> None:
    assert parse_fault("call=xc_monitor_cpuid,nth=2,errno=ENOMEM") == {
        "call": "xc_monitor_cpuid",
        "nth": "2",
        "errno": "ENOMEM",
    }
    assert parse_fault("call=xc_domain_pause,after=0,order=destroy") == {
        "call": "xc_domain_pause",
        "after": False,
        "order": {"do": "destroy"},
    }


def test_a_running_simulator_refuses_a_wrong_one() -> None:
    with Simulation(scenario="idle") as simulation:
        with pytest.raises(XenintroError, match="cannot fault"):
            simulation.control("fault", fault={"call": "xc_nonsense"})
        with pytest.raises(UsageError):
            Simulation(faults=[{"call": "xc_domain_pause", "errno": "EBUZZY"}])


def test_a_disaster_at_a_call() -> None:
    faults = [{"call": "xc_domain_pause", "nth": 2, "order": {"do": "crash"}}]
    code = "h = interface(); print([xc.xc_domain_pause(h, 1) for _ in range(2)])"
    with Simulation(scenario="idle", faults=faults) as simulation:
        assert run(simulation, code) == "[0, 0]"
        state = simulation.control("state")
    assert (state["shutdown"], state["pauses"]) == (3, 2), "the call goes on"


@pytest.mark.parametrize("after", [False, True])
def test_a_hang_holds_up_its_client_only(after: bool) -> None:
    faults = [{"call": "xc_domain_pause", "action": "hang", "after": after}]
    with Simulation(scenario="idle", faults=faults) as simulation:
        program = start(simulation, "xc.xc_domain_pause(interface(), 1)")
        assert simulation.wait("called", 1, call="xc_domain_pause", timeout=DEADLINE)
        assert run(simulation, "print(xc.xc_domain_pause(interface(), 1))") == "0"
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.1)
        program.kill()
        program.communicate()
        assert simulation.control("state")["pauses"] == 1 + after


@pytest.mark.parametrize("call", sorted(LOCAL))
def test_calls_that_are_no_hypercalls_fail_too(call: str) -> None:
    code = """
        h = interface(); page, remote = attach(h)
        e = ctypes.c_void_p(evtchn.xenevtchn_open(None, 0))
        port = evtchn.xenevtchn_bind_interdomain(e, 1, remote)
        f = ctypes.c_void_p(foreign.xenforeignmemory_open(None, 0))
        gfn = ctypes.c_uint64(0)
        memory = ctypes.c_void_p(foreign.xenforeignmemory_map(f, 1, 3, 1, ctypes.byref(gfn), None))
        calls = {
            "xenevtchn_pending": lambda: call(evtchn.xenevtchn_pending, e) - port,
            "xenevtchn_unmask": lambda: call(evtchn.xenevtchn_unmask, e, port),
            "xenforeignmemory_unmap": lambda: call(foreign.xenforeignmemory_unmap, f, memory, 1),
        }
        failing = calls.pop(%r)
        print(failing() < 0, failing(), *(one() for one in calls.values()))
    """
    with Simulation(scenario="idle", faults=[{"call": call, "errno": "EINVAL"}]) as simulation:
        assert run(simulation, code % call) == "True 0 0 0"


def test_killed_where_it_closes() -> None:
    faults = [{"call": "xc_interface_close", "action": "kill-client"}]
    with Simulation(scenario="idle", faults=faults) as simulation:
        program = start(simulation, "xc.xc_interface_close(interface())")
        program.communicate(timeout=DEADLINE)
    assert program.returncode == -signal.SIGKILL


def test_faults_are_forgotten() -> None:
    with Simulation(scenario="idle") as simulation:
        for nth in (1, 2):
            simulation.control("fault", fault={"call": "xc_domain_pause", "nth": nth})
        code = "h = interface(); print([xc.xc_domain_pause(h, 1) for _ in range(2)])"
        assert simulation.control("forget-faults") == {"left": 2}
        assert run(simulation, code) == "[0, 0]"
        simulation.control("fault", fault={"call": "xc_domain_pause"})
        assert run(simulation, code) == "[-1, 0]", "nth counts from the order on"
        assert simulation.control("forget-faults") == {"left": 0}
