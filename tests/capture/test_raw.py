"""Raw ring pages and slots from elsewhere: what is imported is what decode prints."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import xenintro
from tests.golden import golden_pages
from tests.slots import make_slot
from xenintro.abi import Interface, interface
from xenintro.capture import Capture, CaptureInfo, CaptureWriter
from xenintro.capture.raw import Imported, import_raw
from xenintro.codec import decode
from xenintro.errors import DamagedInputError, UsageError
from xenintro.ringpage import RingPage, Slot
from xenintro.sinks import jsonl

if TYPE_CHECKING:
    from pathlib import Path

    from tests.golden import GoldenPage

V7 = interface("vm_event-7")
CR3 = make_slot(V7, 4, payload={"index": 1}, paused=True)


def taken(path: Path, data: bytes, layout: Interface, kind: str | None = None) -> Imported:
    info = CaptureInfo(abi=layout.id, arch=layout.arch, started_ns=5, monotonic_ns=5)
    with CaptureWriter(path, info, force=True) as writer:
        return import_raw(BytesIO(data), writer, layout, kind=kind, time_ns=5)


def ring(requests: list[bytes], *, answered: int = 0, layout: Interface = V7) -> bytes:
    page = bytearray(4096)
    struct.pack_into("=4I", page, 0, len(requests), 1, answered, 1)
    for at, raw in enumerate(requests):
        start = 64 + at % layout.nr_slots * layout.slot_size
        page[start : start + layout.slot_size] = raw
    return bytes(page)


def requests_of(golden: GoldenPage) -> list[Slot] | None:
    """Those without an answer; None where the indices are impossible."""
    try:
        return RingPage(golden.page, golden.interface).requests()
    except DamagedInputError:
        return None


def test_a_golden_page_joins_the_tools(tmp_path: Path, golden: GoldenPage) -> None:
    layout = golden.interface
    slots = requests_of(golden)
    imported = taken(tmp_path / "page.pcapng", golden.page, layout)
    assert imported[:3] == ("pages", 1, len(slots or ()))
    assert (imported.damage is None) == (slots is not None)
    with Capture(tmp_path / "page.pcapng") as capture:
        requests = list(capture)
        assert capture.damage is None
    assert [one.event.raw for one in requests] == [slot.raw for slot in slots or ()]
    assert {(one.answer, one.response, one.pause_ns) for one in requests} <= {("unanswered", b"", None)}
    assert [jsonl.event_record(one.event) for one in requests] == [
        jsonl.event_record(decode(slot.raw, layout)) for slot in slots or ()
    ]
    with Capture(tmp_path / "page.pcapng") as capture:
        assert [page.raw for page in capture.pages] == [golden.page]


def test_slots_are_told_from_pages(tmp_path: Path) -> None:
    for golden in golden_pages()[::7]:
        layout = golden.interface
        assert taken(tmp_path / "pages.pcapng", golden.page * 3, layout).kind == "pages"
        if raws := [slot.raw for slot in requests_of(golden) or ()]:
            many = b"".join(raws) * (1 + 4096 // len(raws) // layout.slot_size)
            kind = "slots" if layout.reasons else "pages"
            assert taken(tmp_path / "slots.pcapng", many, layout).kind == kind


@pytest.mark.parametrize("count", [1, 11, 256, 1000])
def test_slots_one_after_the_other(tmp_path: Path, count: int) -> None:
    imported = taken(tmp_path / "slots.pcapng", CR3 * count, V7)
    assert imported == Imported("slots", 0, count, 0, None)
    with Capture(tmp_path / "slots.pcapng") as capture:
        assert [one.event.raw for one in capture] == [CR3] * count


def test_what_is_impossible_is_kept_and_the_rest_taken(tmp_path: Path) -> None:
    bad = struct.pack("=4I", 100, 1, 3, 1) + bytes(4080)
    imported = taken(tmp_path / "pages.pcapng", ring([CR3] * 3) + bad + ring([CR3] * 2, answered=1), V7)
    assert imported[:3] == ("pages", 3, 4)
    assert imported.damage is not None
    assert imported.damage.what == "1 of 3 pages have impossible ring indices"
    assert "page 1: impossible ring indices: req_prod 100" in imported.damage.why
    with Capture(tmp_path / "pages.pcapng") as capture:
        assert [page.raw for page in capture.pages][1] == bad


@pytest.mark.parametrize(
    ("data", "what", "requests"), [(CR3 * 2 + CR3[:7], "slot", 2), (ring([CR3]) * 2 + b"x", "page", 2)]
)
def test_a_torn_end(tmp_path: Path, data: bytes, what: str, requests: int) -> None:
    imported = taken(tmp_path / "torn.pcapng", data, V7)
    assert imported.requests == requests
    assert imported.damage is not None
    assert imported.damage.what == f"the last {what} is not whole"


def test_slots_of_another_interface_are_told(tmp_path: Path) -> None:
    assert taken(tmp_path / "other.pcapng", CR3 * 3, interface("vm_event-6"), "slots").unknown == 3


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        taken(tmp_path / "none.pcapng", b"", V7)


def test_the_verb(tmp_path: Path) -> None:
    raw, capture = tmp_path / "ring.bin", tmp_path / "ring.pcapng"
    raw.write_bytes(ring([CR3] * 3))
    made = xenintro("record", "--from-raw", str(raw), "--abi", "vm_event-7", "-w", str(capture))
    assert (made.code, made.stdout) == (0, "")
    assert "took 1 ring pages: 3 requests without an answer" in made.stderr
    shown = xenintro("watch", "-r", str(capture), "--format", "jsonl")
    decoded = xenintro("decode", str(raw), "--abi", "vm_event-7", "--format", "jsonl")
    assert shown.code == decoded.code == 0
    common = decoded.records[0].keys() - {"slot", "ring_index"}
    assert [{key: one[key] for key in common} for one in shown.records] == [
        {key: one[key] for key in common} for one in decoded.records
    ]
    assert {one["answer"] for one in shown.records} == {"unanswered"}
    assert "3 unanswered" in shown.stderr
    replayed = xenintro("replay", str(capture), "--verify", "--format", "jsonl")
    assert replayed.code == 0
    assert "3 requests have no answer in the capture" in replayed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--abi", "vm_event-7"], 2, "no file to write"),
        (["-w", "out.pcapng"], 2, "the interface of raw slots is not known"),
        (["-w", "out.pcapng.gz", "--abi", "vm_event-7"], 2, "out.pcapng.gz is not compressed"),
        (["-w", "out.pcapng", "--abi", "vm_event-7", "-e", "cr3"], 2, "--events is for a live domain"),
        (["-w", "out.pcapng", "--abi", "vm_event-70"], 2, "unknown interface"),
        (["-w", "out.pcapng", "--abi", "vm_event-7", "--raw", "pages"], 7, "1 of 1 pages have impossible"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], code: int, what: str) -> None:
    raw = tmp_path / "ring.bin"
    raw.write_bytes(struct.pack("=4I", 100, 1, 3, 1) + bytes(4080))
    arguments = [str(tmp_path / one) if one.startswith("out") else one for one in arguments]
    outcome = xenintro("record", "--from-raw", str(raw), *arguments)
    assert outcome.code == code
    assert what in outcome.error[0]


def test_options_of_raw_files_without_one() -> None:
    outcome = xenintro("record", "--abi", "vm_event-7", "--domid", "1")
    assert (outcome.code, outcome.error[0]) == (2, "error: nothing raw is imported")
