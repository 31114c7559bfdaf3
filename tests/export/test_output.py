"""Where exports go: names, modes, nothing overwritten, nothing half done under its name."""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.export.samples import SAMPLES
from xenintro.errors import NotSupportedError, UsageError, XenintroError
from xenintro.export import FORMATS, Format, Options, find_format, load_writer
from xenintro.export.output import export

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xenintro.answered import Answered

INFO, EVENTS = SAMPLES["mem_event"]


def test_every_format_has_a_writer() -> None:
    for name in FORMATS:
        assert callable(load_writer(name))


def test_an_unknown_format_is_told_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        find_format("json")
    assert caught.value.hint == "did you mean jsonl?"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "nothing", Format("", ".nothing", extra="parquet"))  # type: ignore[misc]
    with pytest.raises(NotSupportedError) as caught:
        load_writer("nothing")
    assert caught.value.hint == "pip install 'xenintro[parquet]'"


def test_a_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export("jsonl", INFO, EVENTS, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().count(b"\n") == len(EVENTS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["jsonl", "sqlite"])
def test_a_file_is_private_while_it_grows(name: str, tmp_path: Path) -> None:
    modes = []

    def watched() -> Iterator[Answered]:
        for one in EVENTS:
            modes.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir())
            yield one

    export(name, INFO, watched(), tmp_path / "out")
    assert modes == [0o600] * len(EVENTS)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        export("jsonl", INFO, EVENTS, path)
    assert path.read_text() == "mine"
    export("jsonl", INFO, EVENTS, path, Options(force=True))
    assert path.read_text() != "mine"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Answered]:
        yield EVENTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export("jsonl", INFO, failing(), tmp_path / "out.jsonl")
    assert not any(tmp_path.iterdir())


def test_a_device_is_written_and_stays_one(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        export("jsonl", INFO, EVENTS, fifo)
        assert os.read(reader, 1 << 16).count(b"\n") == len(EVENTS)
        assert stat.S_ISFIFO(fifo.stat().st_mode)
    finally:
        os.close(reader)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no file"):
        export("jsonl", INFO, EVENTS, tmp_path, Options(force=True))


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(XenintroError, match="cannot write") as caught:
        export("jsonl", INFO, EVENTS, tmp_path / "missing" / "out.jsonl")
    assert caught.value.why == "No such file or directory"


def test_a_stream_is_written_as_it_is() -> None:
    out = io.BytesIO()
    export("jsonl", INFO, EVENTS, out)
    assert out.getvalue().count(b"\n") == len(EVENTS)
