"""Attach and teardown under fire: events at every step, others who pause the domain, its death on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.forked import Forker, forking
from tests.cli.test_faults import ATTACH, EVENTS, LOOP, TEARDOWN, assert_said

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Calls that are made before anything is done to the domain, and from the first one that is.
BEFORE, ON_THE_WAY = ATTACH[1:6], ATTACH[6:]
DISASTERS = ("destroy", "crash", "suspend", "reboot")
#: Where every disaster is tried each time; `make faults` tries them all everywhere.
CHOSEN = (
    "xc_domain_pause",
    "xc_monitor_enable",
    "xc_monitor_cpuid",
    "xenevtchn_notify",
    "xc_monitor_disable",
)


@pytest.fixture(scope="module", params=[1, 2, 8, 12])
def storm(request: pytest.FixtureRequest) -> Iterator[Forker]:
    with forking(vcpus=request.param, scenario="storm") as forker:
        yield forker


@pytest.mark.parametrize(
    "events",
    ["cpuid", "mem:rwx@0x400-0x2fff", "mem:w@0x400-0x23ff:step,int3,cr3", "guest-request:async", EVENTS],
    ids=["registers", "emulation", "steps", "asynchronous", "everything"],
)
def test_in_and_out_while_events_pour(storm: Forker, events: str) -> None:
    """What vCPUs were answered with and have not picked up when the end comes is not lost."""
    for count in (1, 9, 40):
        assert storm.run(events, count=count).code == 0
        storm.assert_given_back()
        storm.assert_no_rule_broken()


@pytest.mark.parametrize(
    "call", ["xc_domain_getinfolist", "xc_domain_unpause", "xc_monitor_disable", *LOOP[:1]]
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_paused_by_someone_else(storm: Forker, call: str, after: bool) -> None:
    """It stays paused exactly as often as they did it."""
    storm.fault(call, after=after, order={"do": "pause"})
    assert storm.run(EVENTS, duration=0.1).code == 0
    assert storm.simulation.control("forget-faults") == {"left": 0}
    state = storm.simulation.control("state")
    assert (state["pauses"], state["ring"]) == (1, False)
    storm.simulation.control("unpause")
    storm.assert_given_back()
    # A vCPU that may not run cannot take what it was answered with.
    storm.assert_no_rule_broken("effects-lost")


def test_paused_before_and_unpaused_meanwhile(storm: Forker) -> None:
    storm.simulation.control("pause")
    storm.fault("xc_monitor_cpuid", order={"do": "unpause"})
    assert storm.run(EVENTS, count=10).code == 0
    storm.assert_given_back()
    storm.assert_no_rule_broken()


def _meets(call: str, order: str, after: bool = False) -> None:
    with forking(vcpus=2, scenario="storm") as forker:
        forker.fault(call, after=after, order={"do": order})
        outcome = forker.run(EVENTS, count=30)
        # Before the ring there is nothing to lose; on the way out everything was done already.
        expected = {9, 4} if call in BEFORE else {9}
        if call in TEARDOWN:
            expected = {0, 9}
        assert outcome.code in expected, outcome.stderr
        if outcome.code:
            assert_said(outcome)
        if order in ("destroy", "reboot"):
            assert forker.simulation.wait("gone", timeout=5), "a page of it is still mapped"
        else:
            state = forker.simulation.control("state")
            left = [name for name in ("ring", "armed", "restricted", "pauses") if state[name]]
            assert not left
        assert forker.simulation.report()["violations"] == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("order", DISASTERS)
@pytest.mark.parametrize("call", CHOSEN)
def test_disaster(call: str, order: str, after: bool) -> None:
    _meets(call, order, after)


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("order", DISASTERS)
@pytest.mark.parametrize(
    "call", [call for call in (*BEFORE, *ON_THE_WAY, *LOOP, *TEARDOWN) if call not in CHOSEN]
)
def test_disaster_anywhere(call: str, order: str, after: bool) -> None:
    _meets(call, order, after)
