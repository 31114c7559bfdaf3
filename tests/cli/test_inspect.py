"""``xenintro inspect``: for people, for programs, as bytes."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, environment, xenintro
from tests.export import golden
from tests.export.captures import write_sample
from tests.export.samples import SAMPLES, START_NS, STEP_NS
from xenintro.capture import CaptureInfo, CaptureWriter


def without_place(text: str, capture: Path) -> str:
    """What is said without the folder, and without the size: that of the header varies."""
    return re.sub(r"\A.*/(\S+)  [\d.]+ k?B", r"DIR/\1  SIZE", text)


@pytest.mark.parametrize("name", SAMPLES)
def test_golden(name: str, tmp_path: Path) -> None:
    capture = write_sample(name, tmp_path)
    outcome = xenintro("inspect", str(capture))
    assert (outcome.code, outcome.stderr) == (0, "")
    golden.check(f"{name}.inspect.txt", without_place(outcome.stdout, capture))


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_raw(name: str, tmp_path: Path) -> None:
    outcome = xenintro("inspect", str(write_sample(name, tmp_path)), "--raw")
    assert (outcome.code, outcome.stderr) == (0, "")
    golden.check(f"{name}.raw.txt", outcome.stdout)


def test_numbers_for_programs(tmp_path: Path) -> None:
    outcome = xenintro("inspect", str(write_sample("x86", tmp_path)), "--format", "jsonl")
    (record,) = outcome.records
    assert (record["v"], record["events"], record["closed"]) == (1, 24, True)
    assert (record["unanswered"], record["late"], record["missing"], record["lost"]) == (1, 1, 0, 0)
    assert sum(reason["count"] for reason in record["reasons"].values()) == 24
    assert sum(answer["count"] for answer in record["answers"]) == 24
    assert record["info"]["uuid"] == "6e0c4b2a-0000-4000-8000-000000000001"
    assert {
        "answer": "deny",
        "would": None,
        "rule": "freeze-lstar",
        "level": "critical",
        "count": 1,
    } in record["answers"]
    assert record["reasons"]["guest_request"]["pause_ns"]["max"] == 8000


def gappy(tmp_path: Path) -> Path:
    """Two captures one after the other, the second without the requests in between, and much later."""
    events = SAMPLES["arm"].events
    info = CaptureInfo(abi="vm_event-7", arch="arm64", domain="gap\x1b[31mpy", started_ns=START_NS)
    path, more = tmp_path / "gappy.pcapng", tmp_path / "more.pcapng"
    with CaptureWriter(path, info) as writer:
        writer.write([events[0]._replace(taken_ns=0, answered_ns=STEP_NS)])
    with CaptureWriter(more, info, first_id=4) as writer:
        writer.write([events[1]._replace(taken_ns=90_000_000_000, answered_ns=90_000_000_000 + STEP_NS)])
    packets = more.read_bytes()
    header = path.read_bytes()
    first = packets.index(events[1].event.raw) - 28
    path.write_bytes(header + packets[first:])
    return path


def test_gaps_are_said(tmp_path: Path) -> None:
    path = gappy(tmp_path)
    text = xenintro("inspect", str(path)).stdout
    assert "0 unanswered, 0 late, 3 missing" in text
    assert "silence of 90.0 s from 2026-11-22 16:59:59 UTC" in text
    (record,) = xenintro("inspect", str(path), "--format", "jsonl").records
    assert (record["missing"], [gap["length_ns"] for gap in record["silences"]]) == (
        3,
        [90_000_000_000 - STEP_NS],
    )


def test_a_capture_cannot_play_with_the_terminal(tmp_path: Path) -> None:
    assert "domain     gap?[31mpy" in xenintro("inspect", str(gappy(tmp_path))).stdout


def test_a_torn_capture_is_shown_up_to_the_tear(tmp_path: Path) -> None:
    capture = write_sample("x86", tmp_path)
    capture.write_bytes(capture.read_bytes()[:-3000])
    outcome = xenintro("inspect", str(capture))
    assert outcome.code == 7
    shown = re.search(r"\n  (\d+) events in ", outcome.stdout)
    assert shown is not None
    assert 10 < int(shown[1]) < 24
    assert "not closed by its writer" in outcome.stdout
    assert outcome.error[0] == f"error: {capture} is damaged"
    raw = xenintro("inspect", str(capture), "--raw")
    assert (raw.code, raw.stdout.count("request, 400 bytes")) == (7, int(shown[1]))
    (record,) = xenintro("inspect", str(capture), "--format", "jsonl").records
    assert (record["closed"], record["lost"]) == (False, None)
    assert "missing" in record["damage"]


def test_an_empty_capture(tmp_path: Path) -> None:
    capture = tmp_path / "empty.pcapng"
    with CaptureWriter(capture, CaptureInfo(abi="vm_event-7")):
        pass
    outcome = xenintro("inspect", str(capture))
    assert outcome.code == 0
    assert "\n  no events\n" in outcome.stdout
    (record,) = xenintro("inspect", str(capture), "--format", "jsonl").records
    assert (record["events"], record["first"], record["rate"]) == (0, None, 0)


def test_what_is_no_capture_exits_7() -> None:
    outcome = xenintro("inspect", "-", stdin=b"no capture")
    assert (outcome.code, outcome.stdout) == (7, "")


def test_raw_is_no_json(tmp_path: Path) -> None:
    outcome = xenintro("inspect", str(write_sample("arm", tmp_path)), "--raw", "--format", "jsonl")
    assert outcome.code == 2


def test_head_is_a_normal_end(tmp_path: Path) -> None:
    capture = write_sample("x86", tmp_path)
    done = subprocess.run(
        f"{COMMAND[0]} -m xenintro_cli inspect {capture} --raw | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, check=False, env=environment(), timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == [b"0  2026-11-22T16:59:59.999990000Z  v1  mem_access", b"0"]
    assert done.stderr == b""


def test_compression_is_said(tmp_path: Path) -> None:
    capture = write_sample("arm", tmp_path)
    packed = capture.with_suffix(".gz")
    packed.write_bytes(gzip.compress(capture.read_bytes(), mtime=0))
    assert re.match(r"\S+arm\.gz  \d+ B, gzip\n", xenintro("inspect", str(packed)).stdout)
    (record,) = xenintro("inspect", str(packed), "--format", "jsonl").records
    assert (record["compression"], record["size"]) == ("gzip", packed.stat().st_size)
