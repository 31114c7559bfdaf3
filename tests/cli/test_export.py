"""``xenintro export``: formats, names, what is overwritten, what is damaged."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.cli.runner import COMMAND, Outcome, environment, xenintro
from tests.export.captures import write_sample
from tests.export.golden import FOLDER
from xenintro.export import FORMATS


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_sample("x86", tmp_path)


def in_folder(folder: Path, *args: str) -> Outcome:
    done = subprocess.run(
        [*COMMAND, "export", *args],
        cwd=folder,
        capture_output=True,
        check=False,
        env=environment(),
        timeout=60,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_jsonl_goes_to_stdout(capture: Path) -> None:
    outcome = xenintro("export", str(capture), "--to", "jsonl")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout == (FOLDER / "x86.jsonl").read_text()


def test_a_capture_comes_by_stdin(capture: Path) -> None:
    outcome = xenintro("export", "-", "--to", "jsonl", stdin=capture.read_bytes())
    assert outcome.stdout == (FOLDER / "x86.jsonl").read_text()


@pytest.mark.parametrize("weight", ["events", "pause"])
def test_weights(capture: Path, weight: str) -> None:
    outcome = xenintro("export", str(capture), "--to", "folded", "--weight", weight)
    assert outcome.stdout == (FOLDER / f"x86.{weight}.folded").read_text()


def test_a_file_is_called_after_its_capture(capture: Path) -> None:
    outcome = in_folder(capture.parent, capture.name, "--to", "sqlite")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "wrote x86.sqlite\n")
    with closing(sqlite3.connect(capture.parent / "x86.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM events").fetchone() == (24,)


def test_nothing_is_overwritten_unasked(capture: Path) -> None:
    path = capture.parent / "out.sqlite"
    path.write_text("mine")
    arguments = ("export", str(capture), "--to", "sqlite", "-o", str(path))
    outcome = xenintro(*arguments)
    assert (outcome.code, path.read_text()) == (2, "mine")
    assert outcome.error == [
        f"error: {path} exists",
        "  nothing is overwritten unasked",
        "  --force replaces it; -o PATH writes elsewhere",
    ]
    assert xenintro(*arguments, "--force").code == 0
    assert path.read_bytes().startswith(b"SQLite format 3")


def test_an_unknown_format_exits_2(capture: Path) -> None:
    outcome = xenintro("export", str(capture), "--to", "sqllite")
    assert outcome.code == 2
    assert outcome.error[0] == "error: unknown format 'sqllite'"
    assert outcome.error[2] == "  did you mean sqlite?"


def test_a_database_is_no_stream(capture: Path) -> None:
    outcome = xenintro("export", str(capture), "--to", "sqlite", "-o", "-")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "stream" in outcome.error[0]


def test_only_some_events(capture: Path) -> None:
    outcome = xenintro("export", str(capture), "--to", "jsonl", "-e", "cr3,msr:lstar")
    reasons = [record["reason"] for record in outcome.records]
    assert sorted(set(reasons)) == ["mov_to_msr", "unknown", "write_ctrlreg"]


def test_only_what_a_filter_takes(capture: Path) -> None:
    outcome = xenintro("export", str(capture), "--to", "jsonl", "-f", "late or answer == 'deny'")
    assert [(one["reason"], one["seq"]) for one in outcome.records] == [("mov_to_msr", 0), ("mem_access", 1)]


def test_a_mistake_in_a_filter_exits_2(capture: Path) -> None:
    outcome = xenintro("export", str(capture), "--to", "jsonl", "-f", "gfm == 1")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "gfn" in outcome.stderr


def test_redacted(capture: Path) -> None:
    outcome = xenintro("export", str(capture), "--to", "jsonl", "--redact")
    assert outcome.code == 0
    assert "deadbeef" not in outcome.stdout
    assert {record["regs"]["rax"] for record in outcome.records if record["regs"]} <= {"0x0", None}


def test_a_torn_capture_is_exported_up_to_the_tear(capture: Path) -> None:
    torn, out = capture.parent / "torn.pcapng", capture.parent / "out.jsonl"
    torn.write_bytes(capture.read_bytes()[:-3000])
    outcome = xenintro("export", str(torn), "--to", "jsonl", "-o", str(out))
    assert outcome.code == 7
    assert outcome.error[0] == f"error: {torn} is damaged"
    lines = (FOLDER / "x86.jsonl").read_text().splitlines()
    written = out.read_text().splitlines()
    assert 10 < len(written) < len(lines)
    assert written[:10] == lines[:10]


def test_what_is_no_capture_exits_7(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no capture")
    outcome = in_folder(tmp_path, "text", "--to", "sqlite")
    assert outcome.code == 7
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_missing_file_exits_2(tmp_path: Path) -> None:
    outcome = xenintro("export", str(tmp_path / "none.pcapng"), "--to", "jsonl")
    assert (outcome.code, len(outcome.error)) == (2, 2)


def test_a_reader_that_has_seen_enough_is_a_normal_end(capture: Path) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "export", str(capture), "--to", "jsonl"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    os.close(write)
    os.close(read)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


def test_a_missing_package_exits_6(capture: Path) -> None:
    program = (
        "import sys; sys.modules['pyarrow'] = None; from xenintro_cli.__main__ import run;"
        f"sys.exit(run(['export', {str(capture)!r}, '--to', 'parquet']))"
    )
    done = subprocess.run([COMMAND[0], "-c", program], capture_output=True, check=False, cwd=capture.parent)
    assert done.returncode == 6
    assert b"pip install 'xenintro[parquet]'" in done.stderr


def test_the_help_names_every_format() -> None:
    text = xenintro("export", "--help").stdout
    for name, row in FORMATS.items():
        assert f"  {name:<12}{row.summary}" in text


def test_ctrl_c_leaves_nothing(capture: Path) -> None:
    folder = capture.parent / "out"
    folder.mkdir()
    with subprocess.Popen(
        [*COMMAND, "export", "-", "--to", "sqlite", "-o", str(folder / "x.sqlite")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(capture.read_bytes()[:-3000])
        process.stdin.flush()
        deadline = monotonic() + 60
        while not any(folder.iterdir()):
            assert monotonic() < deadline
            sleep(0.01)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 1
    assert errors.startswith(b"error: stopped before the end\n")
    assert not any(folder.iterdir())
