"""Folded stacks and speedscope documents."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.export import golden
from tests.export.samples import SAMPLES
from xenintro.capture.info import CaptureInfo
from xenintro.export import Options
from xenintro.export.output import export
from xenintro.export.stacks import stacks


def written(name: str, sample: str, weight: Any = "events") -> str:
    out = io.BytesIO()
    export(name, *SAMPLES[sample], out, Options(weight=weight))
    return out.getvalue().decode()


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("weight", ["events", "pause"])
def test_golden_folded(sample: str, weight: Any) -> None:
    golden.check(f"{sample}.{weight}.folded", written("folded", sample, weight))


@pytest.mark.parametrize("sample", SAMPLES)
def test_weights_sum_up(sample: str) -> None:
    events = SAMPLES[sample].events
    for weight, total in (
        ("events", len(events)),
        ("pause", sum(one.pause_ns or 0 for one in events)),
    ):
        lines = written("folded", sample, weight).splitlines()
        assert sum(int(line.rpartition(" ")[2]) for line in lines) == total


def test_speedscope_has_both_profiles() -> None:
    document = json.loads(written("speedscope", "x86", "pause"))
    frames = [frame["name"] for frame in document["shared"]["frames"]]
    assert document["activeProfileIndex"] == 1
    for profile, weight in zip(document["profiles"], ("events", "pause"), strict=True):
        assert profile["endValue"] == sum(profile["weights"])
        folded = [
            ";".join(frames[at] for at in sample) + f" {value}"
            for sample, value in zip(profile["samples"], profile["weights"], strict=True)
        ]
        assert folded == written("folded", "x86", weight).splitlines()


def test_names_cannot_make_frames() -> None:
    out = io.BytesIO()
    export("folded", CaptureInfo(abi="vm_event-7", domain="a;b\nc"), SAMPLES["arm"].events, out)
    assert {line.split(";")[0] for line in out.getvalue().decode().splitlines()} == {"a_b_c"}


def test_too_many_instructions_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenintro.export.stacks._MOST", 2)
    info, events = SAMPLES["x86"]
    counted = stacks(info, events)
    assert sum(stack.events for stack in counted) == len(events)
    assert sum(stack.frames[-1] != "[others]" for stack in counted) == 2
