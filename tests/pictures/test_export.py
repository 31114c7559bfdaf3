"""Pictures by the command line, of captures that are whole and of one that is torn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import xenintro
from tests.export.captures import write_sample
from tests.export.samples import SAMPLES
from xenintro.export import FORMATS
from xenintro.export.output import export

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = ("report", "heatmap", "perfetto")


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_capture(sample: str, name: str, tmp_path: Path) -> None:
    picture = tmp_path / f"out{FORMATS[name].suffix}"
    export(name, *SAMPLES[sample], picture)
    assert picture.stat().st_size > 500


def test_they_do_not_overwrite_each_other() -> None:
    assert len({FORMATS[name].suffix for name in PICTURES}) == len(PICTURES)


def test_a_torn_capture_says_so(tmp_path: Path) -> None:
    capture = write_sample("x86", tmp_path)
    capture.write_bytes(capture.read_bytes()[:-700])
    picture = tmp_path / "out.html"
    outcome = xenintro("export", str(capture), "--to", "report", "-o", str(picture))
    assert outcome.code == 7
    page = picture.read_text()
    assert "damaged: " in page
    assert "not closed by its writer" in page
