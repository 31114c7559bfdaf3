"""Whatever a capture holds, every format takes it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.capture.making import batches
from xenintro.capture import CaptureInfo
from xenintro.export import FORMATS
from xenintro.export.output import export

if TYPE_CHECKING:
    from xenintro.abi import Interface
    from xenintro.answered import Answered

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

INFOS = st.builds(
    CaptureInfo,
    abi=st.just("vm_event-7"),
    domid=st.none() | st.integers(0, (1 << 32) - 1),
    domain=st.none() | _TEXTS,
    nr_vcpus=st.none() | st.integers(-(1 << 70), 1 << 70),
    events=_TEXTS,
    policies=st.dictionaries(_TEXTS, _TEXTS, max_size=2),
    mode=st.none() | _TEXTS,
    deadline=st.none() | st.floats(0, 1e6),
    started_ns=st.integers(0, (1 << 63) - 1),
    command=st.lists(_TEXTS, max_size=3).map(tuple),
)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=6, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(batches(), INFOS, st.integers(0, (1 << 63) - 10_000))
def test_every_format_takes_it(
    name: str, made: tuple[Interface, list[list[Answered]]], info: CaptureInfo, offset: int
) -> None:
    layout, parts = made
    info = msgspec.structs.replace(info, abi=layout.id, arch=layout.arch)
    events = [
        one._replace(taken_ns=one.taken_ns + offset, answered_ns=one.answered_ns + offset)
        for part in parts
        for one in part
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        export(name, info, events, path)
        assert path.exists()
