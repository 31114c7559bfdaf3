"""Whatever was on the ring and whenever, there is a picture of it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures.captures import UNHURRIED
from tests.slots import slots
from xenintro.answered import Answered
from xenintro.capture.info import CaptureInfo
from xenintro.codec import decode
from xenintro.export import Options, load_writer


@st.composite
def requests(draw: st.DrawFn) -> Answered:
    layout, raw = draw(slots())
    taken, answered = draw(st.integers(0, 2**63 - 1)), draw(st.integers(0, 2**63 - 1))
    response = draw(st.one_of(st.just(b""), st.binary(min_size=layout.slot_size, max_size=layout.slot_size)))
    return Answered(decode(raw, layout), draw(st.text()), response, taken, answered)


@pytest.mark.parametrize("name", ["report", "heatmap", "perfetto"])
def test_there_is_a_picture(name: str) -> None:
    writer = load_writer(name)

    @settings(UNHURRIED, max_examples=40)
    @given(st.lists(requests(), max_size=12))
    def check(events: list[Answered]) -> None:
        output = io.BytesIO()
        writer(CaptureInfo(abi="vm_event-7"), events, output, Options())
        assert output.getvalue()

    check()
