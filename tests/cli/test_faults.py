"""A libxc call that fails, at attach, in the loop or at the end: a clear error, and the guest runs on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.forked import Forker, forking
from tests.cli.runner import COMMAND, TIMEOUT, environment
from tests.cli.simulated import finished, interrupted, simulated_host
from xenintro.sim.errnos import ERRNOS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

    from tests.cli.runner import Outcome

EVENTS = "mem:w@0x400-0x23ff,cr3,msr:lstar,cpuid,int3,debug,desc,guest-request"

#: Calls on the way in, in their order; the nth is 1.
ATTACH = (
    *("xc_interface_open", "xc_domain_getinfolist", "xc_vm_event_get_version"),
    *("xc_monitor_get_capabilities", "xc_get_mem_access", "xc_domain_maximum_gpfn"),
    *("xc_domain_pause", "xc_monitor_enable", "xenevtchn_open", "xenevtchn_bind_interdomain"),
    *("xc_monitor_singlestep", "xc_monitor_emul_unimplemented", "xc_set_mem_access"),
    *("xc_monitor_write_ctrlreg", "xc_monitor_mov_to_msr", "xc_monitor_cpuid"),
    *("xc_monitor_software_breakpoint", "xc_monitor_debug_exceptions", "xc_monitor_descriptor_access"),
    *("xc_monitor_guest_request", "xc_domain_unpause", "xc_version"),
)
#: Calls of the supervisor, for its second way to the ring: without that one the session goes on.
KEEPER = ("xc_hvm_param_get", "xenforeignmemory_map", "xc_domain_populate_physmap_exact")
LOOP = ("xenevtchn_notify", "xenevtchn_pending", "xenevtchn_unmask", "xc_hvm_inject_trap")
TEARDOWN = ("xc_vcpu_getinfo", "xc_domain_debug_control", "xc_monitor_disable", "xenevtchn_unbind")
CLOSING = ("xenevtchn_close", "xc_interface_close")

#: The documented exit code by errno, where the call says nothing else; all others are 1.
CODES = {"ESRCH": 4, "EPERM": 3, "EACCES": 3}
_NO_DEVICE = dict.fromkeys(("ENOENT", "ENXIO", "ENODEV"), 3)
_NOT_OFFERED = dict.fromkeys(("EOPNOTSUPP", "ENOSYS"), 6)
CODES_OF = {
    "xc_interface_open": _NO_DEVICE,
    "xenevtchn_open": _NO_DEVICE,
    "xc_get_mem_access": {"EINVAL": 6, "ENODEV": 0},  # the answer where there is no ring
    "xc_set_mem_access": {"EINVAL": 6},
    "xc_hvm_inject_trap": {"EBUSY": 0},  # one is pending, so the guest gets one
    "xc_monitor_enable": {"EBUSY": 5, "ENODEV": 6, "EINVAL": 6} | _NOT_OFFERED,
    **{call: _NOT_OFFERED for call in ATTACH if call.startswith("xc_monitor_") and "enable" not in call},
}


#: Xen either does these or says so; and the one that only asks fails anyway.
_NEVER_HALF_DONE = ("xc_domain_pause", "xc_domain_unpause", "xc_get_mem_access")


def code_of(call: str, errno: str) -> int:
    return {**CODES, **CODES_OF.get(call, {})}.get(errno, 1)


def each_errno(*calls: str, nth: int = 1) -> list[ParameterSet]:
    """Every errno of every call; those that end as another one of the call does are for `make faults`."""
    cases = []
    for call in calls:
        seen: set[int] = set()
        for name in ERRNOS[call]:
            code = code_of(call, name)
            marks = [pytest.mark.exhaustive] if code in seen else []
            cases.append(pytest.param(call, nth, name, marks=marks))
            seen.add(code)
    return cases


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(vcpus=2, scenario="storm") as forker:
        yield forker


def assert_said(outcome: Outcome) -> None:
    """What happened, why, and what to do: no more, and no traceback."""
    assert len(outcome.error) == 3, outcome.stderr
    assert "this is a bug" not in outcome.stderr


def test_the_lists_name_every_call_of_a_session(forker: Forker) -> None:
    forker.fault("xenevtchn_pending", nth=100_000)  # handles ask about local calls too
    for _ in range(2):  # the second finds no page behind the gfn
        assert forker.run(EVENTS, count=50).code == 0
    made = set(forker.simulation.control("calls"))
    named = {*ATTACH, *KEEPER, *LOOP, *TEARDOWN, *CLOSING}
    assert made == named, made ^ named


@pytest.mark.parametrize(("call", "nth", "errno"), each_errno(*ATTACH))
def test_attach(forker: Forker, call: str, nth: int, errno: str) -> None:
    forker.fault(call, errno=errno, nth=nth)
    outcome = forker.run(EVENTS, count=10)
    assert outcome.code == code_of(call, errno), outcome.stderr
    if outcome.code:
        assert_said(outcome)
    forker.assert_given_back()
    forker.assert_no_rule_broken()


@pytest.mark.parametrize("call", [call for call in ATTACH if call not in _NEVER_HALF_DONE])
def test_attach_where_the_call_took_effect_all_the_same(forker: Forker, call: str) -> None:
    forker.fault(call, errno="EIO", after=True)
    outcome = forker.run(EVENTS, count=10)
    assert outcome.code == 1, outcome.stderr
    assert_said(outcome)
    forker.assert_given_back()
    forker.assert_no_rule_broken()


@pytest.mark.parametrize(("call", "nth", "errno"), each_errno(*KEEPER))
def test_without_a_second_way_to_the_ring(forker: Forker, call: str, nth: int, errno: str) -> None:
    forker.fault(call, errno=errno, nth=nth)
    assert forker.run(EVENTS, count=10).code == 0
    forker.assert_given_back()
    forker.assert_no_rule_broken()


@pytest.mark.parametrize(("call", "nth", "errno"), [*each_errno(*LOOP), *each_errno(*LOOP, nth=3)])
def test_loop(forker: Forker, call: str, nth: int, errno: str) -> None:
    forker.fault(call, errno=errno, nth=nth)
    outcome = forker.run(EVENTS, count=200)
    assert outcome.code == code_of(call, errno), outcome.stderr
    if outcome.code:
        assert_said(outcome)
    forker.assert_given_back()
    forker.assert_no_rule_broken()


@pytest.mark.parametrize(
    ("call", "nth", "errno"),
    [
        *each_errno(*TEARDOWN),
        *each_errno("xc_domain_pause", "xc_domain_unpause", nth=2),
        *((call, 2, "EIO") for call in ATTACH if call.startswith("xc_monitor_")),
        *((call, 1, "EIO") for call in CLOSING),
    ],
)
def test_the_way_out(forker: Forker, call: str, nth: int, errno: str) -> None:
    """One failing step does not keep the others from being done, and what is left the supervisor does."""
    forker.fault(call, errno=errno, nth=nth)
    outcome = forker.run(EVENTS, count=30)
    assert outcome.code in (0, 1), outcome.stderr
    if outcome.code:
        assert call in outcome.stderr
        assert "this is a bug" not in outcome.stderr
    forker.assert_given_back()


@pytest.mark.parametrize(
    "after", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["before", "after"]
)
@pytest.mark.parametrize("call", [*ATTACH, *LOOP, *TEARDOWN, *CLOSING])
def test_killed_at_a_call(forker: Forker, call: str, after: bool) -> None:
    _killed(forker, call, 1, after)


@pytest.mark.exhaustive
@pytest.mark.parametrize("nth", range(2, 9))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", [*ATTACH, *KEEPER, *LOOP, *TEARDOWN, *CLOSING])
def test_killed_at_a_later_call(forker: Forker, call: str, after: bool, nth: int) -> None:
    _killed(forker, call, nth, after)


def _killed(forker: Forker, call: str, nth: int, after: bool) -> None:
    forker.fault(call, nth=nth, action="kill-client", after=after)
    outcome = forker.run(EVENTS, count=50)
    if outcome.code:  # 0: the session made fewer calls, or it was not the worker's
        assert outcome.code == 1, outcome.stderr
        # The supervisor makes some of these calls too; its worker ends in order then, or was about to end.
        assert any(word in outcome.stderr for word in ("SIGKILL", "SIGTERM", "supervisor")), outcome.stderr
        assert_said(outcome)
    forker.assert_given_back()


_HANGING = ("xc_monitor_enable", "xc_monitor_cpuid", "xenevtchn_notify", "xc_monitor_disable")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", _HANGING)
def test_hangs_at_a_call(forker: Forker, call: str, after: bool) -> None:
    _hangs(forker, call, after)


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "call", [call for call in (*ATTACH[6:], *LOOP, *TEARDOWN, "xenevtchn_close") if call not in _HANGING]
)
def test_hangs_at_any_call(forker: Forker, call: str, after: bool) -> None:
    _hangs(forker, call, after)


def _hangs(forker: Forker, call: str, after: bool) -> None:
    forker.fault(call, action="hang", after=after)
    outcome = forker.run(EVENTS, count=50, patience=0.5)
    assert outcome.code == 1, outcome.stderr
    assert "had to be killed" in outcome.stderr
    forker.assert_given_back()


@pytest.mark.parametrize("order", ["destroy", "crash", "suspend", "reboot"])
def test_a_domain_that_dies_is_let_go_at_once(order: str) -> None:
    with forking(vcpus=2) as forker:
        watching = forker.start(EVENTS)
        assert forker.simulation.wait("answered", 50)
        began = time.monotonic()
        forker.simulation.control(order)
        outcome = watching.finished()
        took = time.monotonic() - began
        assert outcome.code == 9, outcome.stderr
        assert_said(outcome)
        assert took < 0.4, "polling alone would take up to half a second"
        if order in ("destroy", "reboot"):
            assert forker.simulation.wait("gone", timeout=5)
        assert forker.simulation.report()["violations"] == []


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM])
def test_signals_that_usually_kill(number: int) -> None:
    with simulated_host() as host:
        process = host.start("watch", "--domid", "1", "-e", "cr3,cpuid")
        assert host.simulation.wait("answered", 20)
        assert interrupted(process, number).code == 0
        host.assert_untouched()


def test_ctrl_z_does_not_freeze_the_guest() -> None:
    with simulated_host() as host:
        process = host.start("watch", "--domid", "1", "-e", "cr3,cpuid")
        assert host.simulation.wait("answered", 20)
        process.send_signal(signal.SIGTSTP)
        before = host.simulation.report()["answered"]
        assert host.simulation.wait("answered", before + 100)
        process.send_signal(signal.SIGCONT)
        assert interrupted(process).code == 0
        host.assert_untouched()


def test_nohup_is_respected() -> None:
    with simulated_host() as host:
        ignoring = (
            "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", ignoring, *COMMAND, "watch", "--domid", "1", "-e", "cr3"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(**host.simulation.environment),
        )
        assert host.simulation.wait("answered", 20)
        process.send_signal(signal.SIGHUP)
        before = host.simulation.report()["answered"]
        assert host.simulation.wait("answered", before + 50)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0
        host.assert_untouched()


@pytest.mark.parametrize("output_format", ["human", "jsonl"])
def test_a_reader_that_stops_reading_stops_no_guest(output_format: str) -> None:
    with simulated_host(scenario="storm") as host:
        process = host.start("watch", "--domid", "1", "-e", EVENTS, "--format", output_format)
        assert host.simulation.wait("answered", 3000)
        outcome = interrupted(process)
        assert outcome.code == 0, outcome.stderr
        assert outcome.stdout.count("\n") >= 3000
        host.assert_untouched()


def test_a_full_disk_ends_it_well() -> None:
    with simulated_host() as host, open("/dev/full", "wb") as full:  # noqa: PTH123
        process = host.start("watch", "--domid", "1", "-e", "cr3", stdout=full)
        outcome = finished(process)
        assert outcome.code == 1
        assert outcome.error[0] == "error: cannot write the output"
        host.assert_untouched()
