"""Loading policies: what is one, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.codec import decode
from xenintro.errors import PolicyError
from xenintro.guest import Guest
from xenintro.policy import chain, load
from xenintro.response import Response

if TYPE_CHECKING:
    from pathlib import Path

GUEST = Guest(domid=1, uuid="-", name="tiny", nr_vcpus=1)
V7 = interface("vm_event-7")
CR3 = decode(make_slot(V7, 4, payload={"index": 1}, paused=True), V7)
IMPORT = "from xenintro.response import Response\n"


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
