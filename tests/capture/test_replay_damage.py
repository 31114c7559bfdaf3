"""untrusted_input: whatever a capture says, replaying or showing it ends with a documented exit code."""

from __future__ import annotations

import sys
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.capture.making import CR3, RULE, V7, answered
from tests.slots import make_slot
from xenintro.capture import CaptureInfo, CaptureWriter
from xenintro.capture.blocks import LONGEST_OPTION
from xenintro.xen.stepping import StepState
from xenintro_cli.__main__ import run

if TYPE_CHECKING:
    from pathlib import Path

STEP = make_slot(V7, 7, vcpu_id=1, paused=True)
ACCESS = make_slot(V7, 1, vcpu_id=1, paused=True, payload={"gfn": 5, "flags": 2})
INFO = CaptureInfo(
    abi=V7.id,
    domid=1,
    domain="tiny",
    nr_vcpus=2,
    events="mem:w@0x5:step,cr3",
    policies={"p.py": "0" * 64},
    mode="enforce",
    deadline=0.25,
    steps=StepState((1,), {0: 5}),
    started_ns=1_000,
    monotonic_ns=1_000,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


def small(directory: Path) -> bytes:
    path = directory / "small.pcapng"
    if not path.exists():
        with CaptureWriter(path, INFO) as writer:
            writer.write([answered(ACCESS), answered(STEP), answered(CR3, rule=RULE, would="deny")])
            writer.write([answered(CR3, late=True)])
    return path.read_bytes()


def codes(path: Path) -> set[int]:
    """Those of everything that reads a capture through its events."""
    ended = set()
    for command in (["watch", "-r"], ["replay"], ["replay", "--verify"]):
        before = sys.stdout
        sys.stdout = TextIOWrapper(BytesIO(), "utf-8")
        try:
            ended.add(run([*command, str(path), "-q"]))
        finally:
            sys.stdout = before
    return ended


def test_it_is_whole(directory: Path) -> None:
    small(directory)
    assert codes(directory / "small.pcapng") == {0, 8}


@settings(max_examples=120)
@given(st.data())
def test_damaged_bytes(directory: Path, data: st.DataObject) -> None:
    raw = bytearray(small(directory))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    path = directory / "damaged.pcapng"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    assert codes(path) <= {0, 2, 6, 7, 8}


@pytest.mark.parametrize(
    "changes",
    [
        {"nr_vcpus": -1},
        {"events": "nonsense"},
        {"events": "x" * (LONGEST_OPTION // 2)},
        {"mode": "whatever", "deadline": 1e300},
        {"domain": "\x1b[31mred\n", "xen": "\x1b]0;title\x07"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_hostile_headers(directory: Path, changes: dict[str, object]) -> None:
    path = directory / "hostile.pcapng"
    info = msgspec.convert(msgspec.to_builtins(INFO) | changes, CaptureInfo)
    with CaptureWriter(path, info, force=True) as writer:
        writer.write([answered(ACCESS), answered(CR3)])
    assert codes(path) <= {0, 7, 8}


def test_times_beyond_the_calendar(directory: Path) -> None:
    """The same numbers as seconds: some thousand years are a capture, more are none."""
    resolution = bytes([9, 0, 1, 0, 9])  # if_tsresol of nanoseconds
    data = small(directory)
    assert resolution in data
    path = directory / "late.pcapng"
    path.write_bytes(data.replace(resolution, resolution[:-1] + b"\0"))
    assert codes(path) <= {0, 7, 8}
