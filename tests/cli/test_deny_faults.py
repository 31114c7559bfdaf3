"""Calls that fail, kill or hang where register writes are made to wait for denials: the guest runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.forked import Forker, forking
from xenintro.sim.errnos import ERRNOS

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS = "cr3,msr:lstar,debug,desc,vmexit"

#: Of a domctl of our own, in their order: once to see whether it can be done, then to do it.
CALLS = ("xencall_open", "xencall1", "xencall_close")
TIMES = (1, 2, 3)


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(vcpus=2, scenario="storm") as forker:
        yield forker


@pytest.fixture(scope="module")
def denying(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What makes a session one that denies."""
    directory = tmp_path_factory.mktemp("deny")
    directory.chmod(0o755)
    rules = directory / "deny.toml"
    rules.write_text('[[rule]]\nname = "no"\non = "mov_to_msr"\nanswer = "deny"\n')
    return {"policies": (str(rules),), "enforce": True, "count": 50}


def test_a_session_makes_these_calls_as_often(forker: Forker, denying: dict[str, Any]) -> None:
    assert forker.run(EVENTS, **denying).code == 0
    made = forker.simulation.control("calls")
    assert {call: made[call] for call in CALLS} == dict.fromkeys(CALLS, len(TIMES))


@pytest.mark.parametrize("nth", TIMES)
@pytest.mark.parametrize(("call", "errno"), [(call, errno) for call in CALLS for errno in ERRNOS[call]])
def test_fails(forker: Forker, denying: dict[str, Any], call: str, errno: str, nth: int) -> None:
    forker.fault(call, errno=errno, nth=nth)
    outcome = forker.run(EVENTS, **denying)
    if call != "xencall_close":  # what it was opened for is done
        assert outcome.code in (1, 3, 4, 6), outcome.stderr
        assert len(outcome.error) == 3, outcome.stderr
        assert "this is a bug" not in outcome.stderr
    forker.assert_given_back()
    forker.assert_no_rule_broken()


@pytest.mark.parametrize("nth", TIMES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_killed(forker: Forker, denying: dict[str, Any], call: str, after: bool, nth: int) -> None:
    forker.fault(call, nth=nth, action="kill-client", after=after)
    outcome = forker.run(EVENTS, **denying)
    assert outcome.code == 1, outcome.stderr
    assert "SIGKILL" in outcome.stderr
    forker.assert_given_back()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_hangs_while_the_domain_is_paused(
    forker: Forker, denying: dict[str, Any], call: str, after: bool
) -> None:
    forker.fault(call, nth=TIMES[-1], action="hang", after=after)
    outcome = forker.run(EVENTS, patience=0.5, **denying)
    assert outcome.code == 1, outcome.stderr
    assert "had to be killed" in outcome.stderr
    forker.assert_given_back()
