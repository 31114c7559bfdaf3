"""What the outputs say of an event that the deadline thread let happen."""

from __future__ import annotations

import json

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.answered import Answered
from xenintro.codec import acknowledge, decode
from xenintro.session import Summary
from xenintro_cli.output import HumanOutput, JsonOutput, Origin
from xenintro_cli.style import Style
from xenintro_cli.summary import summary_lines

LAYOUT = interface("vm_event-7")
EVENT = decode(make_slot(LAYOUT, 4, payload={"index": 1}, paused=True), LAYOUT)
IN_TIME = Answered(EVENT, "allow", acknowledge(EVENT.raw, LAYOUT), 0, 5_000)
LATE = Answered(EVENT, "allow", acknowledge(EVENT.raw, LAYOUT), 0, 250_000_000, late=True)


def written(output_of: type[JsonOutput | HumanOutput]) -> list[bytes]:
    out: list[bytes] = []
    origin = Origin(1, None)
    output = (
        JsonOutput(origin, out.append)
        if output_of is JsonOutput
        else HumanOutput("never", origin, out.append)
    )
    output([IN_TIME, LATE])
    return b"".join(out).splitlines()


def test_json_says_late_only_where_it_was() -> None:
    in_time, late = map(json.loads, written(JsonOutput))
    assert "late" not in in_time
    assert (late["late"], late["answer"], late["pause_ns"]) == (True, "allow", 250_000_000)


def test_the_line_says_late() -> None:
    _, in_time, late = written(HumanOutput)
    assert b"allow" in in_time
    assert b"late" not in in_time
    assert b"allow late" in late


def test_the_summary_says_how_many() -> None:
    summary = Summary()
    for answered in (IN_TIME, LATE, LATE):
        summary.count(answered)
    summary.end()
    style = Style(color=False, utf8=True)
    options = {"name": "g", "nr_vcpus": 1, "unanswered": 0}
    lines = summary_lines(summary, **options, deadline=0.25, style=style)  # type: ignore[arg-type]
    assert lines[-1] == "  2 requests waited for the deadline (250 ms) and were allowed"
