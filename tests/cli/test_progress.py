"""The bar on stderr: on a terminal, to the end of the capture, and nowhere else."""

from __future__ import annotations

import io
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.capture.making import answered, write_capture
from xenintro.capture import Capture
from xenintro_cli import progress

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 2000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(path: Path, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, quiet: bool = False) -> str:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "_STRIDE", 100)
    with Capture(path) as capture:
        assert sum(1 for _ in progress.with_progress(capture, "reading", quiet=quiet)) == EVENTS
    return stderr.getvalue()


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "c.pcapng", [[answered(taken_ns=at)] for at in range(EVENTS)])


def test_it_grows_to_the_end(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(capture, Terminal(), monkeypatch)
    percents = [int(number) for number in re.findall(r"(\d+)%", text)]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert len(set(percents)) > 3
    assert "events/s" in text


@pytest.mark.parametrize(("terminal", "quiet"), [(Terminal, True), (io.StringIO, False)])
def test_nobody_would_see_it(
    capture: Path, monkeypatch: pytest.MonkeyPatch, terminal: type[io.StringIO], quiet: bool
) -> None:
    assert shown(capture, terminal(), monkeypatch, quiet=quiet) == ""
