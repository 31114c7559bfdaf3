"""The documentation is true: its code runs, its verbs and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.sim import scenario
from xenintro_cli.__main__ import VERBS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_exist(page: Path) -> None:
    for verb in re.findall(r"(?:^|[`$]|--) *xenintro ([a-z]+)\b", page.read_text(), flags=re.MULTILINE):
        assert verb in VERBS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw_slot = make_slot(interface("vm_event-7"), 4, registers={"rip": 0x1000})
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(block, {"raw_slot": raw_slot})
        assert capsys.readouterr().out == "write_ctrlreg 0 0x1000\n"


def test_scenarios_are_the_named_ones() -> None:
    text = (ROOT / "docs" / "simulator.md").read_text()
    assert all(f"`{name}`" in text for name in scenario.names())


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for page in PAGES:
        for target in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), flags=re.MULTILINE):
            assert target in targets
