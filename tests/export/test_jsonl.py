"""JSON Lines of a capture are those of watch, with the capture's times."""

from __future__ import annotations

import io
import json

import pytest

from tests.export import golden
from tests.export.samples import SAMPLES, START_NS, STEP_NS
from xenintro.export.output import export
from xenintro.sinks.jsonl import event_record, timestamp


def lines(name: str) -> str:
    info, events = SAMPLES[name]
    out = io.BytesIO()
    export("jsonl", info, events, out)
    return out.getvalue().decode()


@pytest.mark.parametrize("name", SAMPLES)
def test_golden(name: str) -> None:
    golden.check(f"{name}.jsonl", lines(name))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_event_has_its_line(name: str) -> None:
    records = [json.loads(line) for line in lines(name).splitlines()]
    assert [record["seq"] for record in records] == list(range(len(SAMPLES[name].events)))
    for at, (record, answered) in enumerate(zip(records, SAMPLES[name].events, strict=True)):
        assert record["ts"] == timestamp(START_NS + at * STEP_NS)
        assert event_record(answered.event).items() <= record.items()


def test_an_unanswered_request_has_no_pause() -> None:
    last = json.loads(lines("x86").splitlines()[-1])
    assert (last["answer"], last["pause_ns"]) == ("unanswered", None)
