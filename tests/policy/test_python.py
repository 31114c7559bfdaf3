"""Policies in Python: what is one, what is refused, and what becomes of its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.codec import decode
from xenintro.errors import PolicyError, RuleError
from xenintro.guest import Guest
from xenintro.policy import chain, load, running
from xenintro.response import Response

if TYPE_CHECKING:
    from pathlib import Path

    from xenintro.events import Event
    from xenintro.policy import Policy
    from xenintro.verdict import Verdict

GUEST = Guest(domid=1, uuid="-", name="tiny", nr_vcpus=1)
V7 = interface("vm_event-7")
CR3 = decode(make_slot(V7, 4, payload={"index": 1}, paused=True), V7)
MSR = decode(make_slot(V7, 5, paused=True), V7)
IMPORT = (
    "from xenintro.events import *\nfrom xenintro.policy import on\nfrom xenintro.response import Response\n"
)


def judged(policies: list[Policy], event: Event = CR3) -> Verdict | None:
    decide = chain(policies, GUEST)
    assert decide is not None
    return decide(event)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path / "policy.py"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("class Policy:\n def decide(self, event, guest): return Response.deny()", ""),
        ("def decide(event, guest): return Response.deny()", ""),
        ("class Mine:\n def decide(self, event, guest): return Response.deny()", ":Mine"),
        ("def mine(event, guest): return Response.deny()", ":mine"),
    ],
)
def test_kinds(written: Path, text: str, name: str) -> None:
    written.write_text(IMPORT + text)
    decide = chain([load(f"{written}{name}")], GUEST)
    assert decide is not None
    verdict = decide(CR3)
    assert verdict is not None
    assert verdict.response == Response.deny()
    assert verdict.rule.name == (name.removeprefix(":") or "policy")


def test_the_first_that_answers_wins(written: Path) -> None:
    written.write_text(
        IMPORT
        + "def silent(event, guest): return None\n"
        + "def plain(event, guest): return Response.plain()\n"
        + "def deny(event, guest): return Response.deny() if guest.name == 'tiny' else None\n"
    )
    silent, plain, deny = (load(f"{written}:{name}") for name in ("silent", "plain", "deny"))
    decide = chain([silent, deny, plain], GUEST)
    assert decide is not None
    verdict = decide(CR3)
    assert verdict is not None
    assert (verdict.response, verdict.rule.name) == (Response.deny(), "deny")
    assert chain([], GUEST) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef decide(event:\n", "line 2"),
        ("x = 1\nx.nothing\n", "line 2"),
        ("class Policy:\n def __init__(self):\n  raise ValueError('no')", "line 3"),
        ("x = 1", "no policy"),
        ("Policy = 3", "not a policy"),
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("import sys\nsys.exit()", "SystemExit"),
        ("class Policy:\n    def __init__(self):\n        raise GeneratorExit", "GeneratorExit"),
    ],
)
def test_mistakes(written: Path, text: str, words: str) -> None:
    written.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load(str(written))
    assert words in " ".join(caught.value.lines())


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot read"):
        load(str(tmp_path / "none.py"))


def test_what_everybody_can_write_is_refused(written: Path) -> None:
    written.write_text("def decide(event, guest): return None")
    written.chmod(0o666)
    with pytest.raises(PolicyError, match="not trusted"):
        load(str(written))
    written.chmod(0o644)
    written.parent.chmod(0o777)
    with pytest.raises(PolicyError, match="not trusted"):
        load(str(written))
    written.parent.chmod(0o1777)
    load(str(written))


def test_functions_for_kinds_of_events(written: Path) -> None:
    written.write_text(
        IMPORT
        + "@on(WriteCtrlreg)\ndef control(event, guest): return None\n"
        + "@on('mov_to_msr', WriteCtrlreg)\ndef both(event, guest): return Response.plain()\n"
    )
    policy = load(str(written))
    assert [rule.name for rule in policy.rules] == ["control", "both"]
    for event in (CR3, MSR):
        verdict = judged([policy], event)
        assert verdict is not None
        assert (verdict.response, verdict.rule.name) == (Response.plain(), "both")
    assert judged([policy], decode(make_slot(V7, 10, paused=True), V7)) is None


def test_methods_share_the_state_of_their_object(written: Path) -> None:
    written.write_text(
        IMPORT
        + """
class Policy:
    def __init__(self): self.writes = 0
    @on(MovToMsr)
    def count(self, event, guest): self.writes += 1
    @on("write_ctrlreg")
    def frozen(self, event, guest): return Response.deny() if self.writes > 1 else None
"""
    )
    policies = [load(str(written))]
    assert judged(policies) is None
    assert judged(policies, MSR) is None
    assert judged(policies, MSR) is None
    verdict = judged(policies)
    assert verdict is not None
    assert verdict.rule.name == "frozen"


def test_an_event_that_does_not_exist(written: Path) -> None:
    written.write_text(IMPORT + "\n@on('mov_to_mrs')\ndef rule(event, guest): pass\n")
    with pytest.raises(PolicyError) as caught:
        load(str(written))
    assert "line 5" in caught.value.what
    assert "mov_to_mrs" in caught.value.why


def test_a_module_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "xenintro_test_policy.py"
    module.write_text(
        IMPORT + "class Mine:\n def decide(self, event, guest): return Response.deny()\nmine = Mine()"
    )
    verdict = judged([load("xenintro_test_policy:mine")])
    assert verdict is not None
    assert verdict.rule.name == "mine"
    with pytest.raises(PolicyError, match="no policy in xenintro_test_policy: no other"):
        load("xenintro_test_policy:other")
    with pytest.raises(PolicyError, match="a mistake in no_such_module"):
        load("no_such_module:mine")
    module.chmod(0o666)
    with pytest.raises(PolicyError, match="not trusted"):
        load("xenintro_test_policy:mine")


def test_one_that_raises_has_no_say(written: Path) -> None:
    written.write_text(
        IMPORT
        + "def broken(event, guest): return 1 / 0\n"
        + "def leaves(event, guest): raise SystemExit\n"
        + "def wrong(event, guest): return 'deny'\n"
        + "def deny(event, guest): return Response.deny()\n"
    )
    broken, leaves, wrong, deny = (
        load(f"{written}:{name}") for name in ("broken", "leaves", "wrong", "deny")
    )
    verdict = judged([broken, leaves, wrong, deny])
    assert verdict is not None
    assert verdict.response == Response.deny()
    assert [error.rule for error in verdict.errors] == ["broken", "leaves", "wrong"]
    assert str(verdict.errors[0]) == "broken: ZeroDivisionError: division by zero (policy.py, line 4)"
    with pytest.raises(RuleError, match="broken: ZeroDivisionError"):
        judged([broken, leaves])


def test_set_up_and_torn_down_whatever_happens(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    written.write_text(
        """
class Good:
    done = []
    def setup(self, guest): self.done.append(f"setup {guest.name}")
    def decide(self, event, guest): self.done.append("decide")
    def teardown(self): self.done.append("teardown")
class Bad(Good):
    def setup(self, guest): raise OSError("no disk")
class Leaving(Good):
    def teardown(self): raise ValueError("again")
"""
    )
    good, bad, leaving = (load(f"{written}:{name}") for name in ("Good", "Bad", "Leaving"))
    done = good.rules[0]._decide.__self__.done  # type: ignore[attr-defined]

    def ends_badly() -> None:
        with running([good], GUEST) as decide:
            assert decide is not None
            raise KeyError(decide(CR3))

    with pytest.raises(KeyError):
        ends_badly()
    assert done == ["setup tiny", "decide", "teardown"]
    done.clear()
    with pytest.raises(PolicyError, match="setup of Bad failed") as caught, running([good, bad], GUEST):
        pass
    assert "no disk" in caught.value.why
    assert done == ["setup tiny", "teardown"]
    with running([good, leaving], GUEST):
        pass
    assert done[-1] == "teardown"
    assert "teardown of Leaving failed: ValueError: again" in caplog.text


def test_functions_of_a_file_are_set_up(written: Path) -> None:
    written.write_text(
        "def setup(guest): guest.marks = ['setup']\ndef teardown(): pass\ndef decide(event, guest): pass"
    )
    with running([load(str(written))], GUEST):
        assert vars(GUEST).pop("marks") == ["setup"]
