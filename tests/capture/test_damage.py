"""Every byte of a capture flipped, every length cut: what is whole is read, the damage is told, no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.capture.making import RULE, answered, write_capture
from xenintro.abi import interface
from xenintro.capture import Capture, CaptureInfo, CaptureWriter
from xenintro.errors import DamagedInputError

if TYPE_CHECKING:
    from pathlib import Path

    from xenintro.answered import Answered

SMALL = interface("mem_event-4.2")
WRITTEN = [answered(bytes(SMALL.slot_size), SMALL, taken_ns=at * 1_000, rule=RULE) for at in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("damage") / "whole"
    return write_capture(path, [[one] for one in WRITTEN], SMALL).read_bytes()


def read(path: Path, data: bytes) -> tuple[list[Answered], DamagedInputError | None]:
    path.write_bytes(data)
    try:
        capture = Capture(path)
    except DamagedInputError as error:
        return [], error
    with capture:
        return list(capture), capture.damage


def test_every_length(tmp_path: Path, whole: bytes) -> None:
    clean = set()
    for length in range(len(whole)):
        records, damage = read(tmp_path / "cut", whole[:length])
        answered_ones = [one for one in records if one.response]
        assert answered_ones == WRITTEN[: len(answered_ones)]
        assert len(records) - len(answered_ones) <= 1
        if damage is None:
            clean.add(length)
    # Only what ends where a block ends cannot be told from a recording that was killed.
    assert len(clean) == 11


@pytest.mark.parametrize("mask", [0xFF, 0x01])
def test_every_byte(tmp_path: Path, whole: bytes, mask: int) -> None:
    first_packet = whole.index(b"\x06\0\0\0")
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= mask
        records, damage = read(tmp_path / "flipped", bytes(data))
        assert len(records) <= len(WRITTEN) + 1, "a response may be taken for a request"
        if at >= first_packet:
            assert sum(one in WRITTEN for one in records) >= len(WRITTEN) - 1
            assert damage is None or damage.hint == "what could be read was read"


def test_times_that_cannot_be(tmp_path: Path) -> None:
    late = answered(bytes(SMALL.slot_size), SMALL, taken_ns=1 << 63)
    early = answered(bytes(SMALL.slot_size), SMALL, taken_ns=5, pause_ns=-1)
    with CaptureWriter(tmp_path / "one", CaptureInfo(abi=SMALL.id)) as writer:
        writer.write([late])
        writer.write([early])
    records, damage = read(tmp_path / "again", (tmp_path / "one").read_bytes())
    assert [(one.taken_ns, one.answer) for one in records] == [(5, "unanswered")]
    assert damage is not None
    assert "after 2262, and " in str(damage.why)


def test_an_info_of_a_time_that_cannot_be_is_not_believed(tmp_path: Path) -> None:
    never = 1 << 63
    info = CaptureInfo(abi=SMALL.id, domain="tiny", events="cr3", started_ns=never, monotonic_ns=never)
    with CaptureWriter(tmp_path / "one", info) as writer:
        writer.write([WRITTEN[0]])
    with Capture(tmp_path / "one") as capture:
        assert capture.info == CaptureInfo(abi=SMALL.id, domain="tiny")  # what the interface says
        assert list(capture) == [WRITTEN[0]]
