"""``xenintro decode``: pages in, lines out, damage told apart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import xenintro
from tests.golden import GoldenPage, golden_pages
from tests.slots import make_slot
from xenintro.abi import RING_INDICES, interface

if TYPE_CHECKING:
    from pathlib import Path


def golden_page(name: str) -> GoldenPage:
    return next(page for page in golden_pages() if page.name == name)


@pytest.mark.parametrize(
    ("name", "abi", "arch"),
    [
        ("mem_event-rfc3/s2", "mem_event-rfc3", "x86_64"),
        ("mem_event-4.5/s3", "mem_event-4.5", "x86_64"),
        ("vm_event-v7-4.18/s3", "vm_event-7", "x86_64"),
        ("vm_event-v7-4.18-arm64/s1", "vm_event-7", "arm64"),
        ("vm_event-v1-4.6/s1", "vm_event-1", "x86_64"),
    ],
)
def test_unanswered_requests_are_printed(tmp_path: Path, name: str, abi: str, arch: str) -> None:
    golden = golden_page(name)
    page = tmp_path / "ring.bin"
    page.write_bytes(golden.page)
    outcome = xenintro("decode", str(page), "--abi", abi, "--arch", arch, "--format", "jsonl")
    assert outcome.code == 0, outcome.stderr
    expected = golden.expected["held_requests"] + golden.expected["requests"]
    assert [(r["seq"], r["vcpu_id"], r["slot"], r["ring_index"]) for r in outcome.records] == [
        (seq, r["vcpu_id"], r["slot"], r["index"]) for seq, r in enumerate(expected)
    ]
    assert {(r["v"], r["abi"], r["arch"]) for r in outcome.records} == {(1, abi, arch)}


def test_a_page_that_is_in_no_table() -> None:
    layout = interface("vm_event-7")
    slot = make_slot(
        layout, 4, payload={"index": 1, "new_value": 0x103000, "old_value": 0x102000},
        registers={"rip": 0x100070}, vcpu_id=3, paused=True,
    )  # fmt: skip
    page = RING_INDICES.pack(2, 3, 1, 2).ljust(64, b"\0") + bytes(400) + slot
    outcome = xenintro(
        "decode", "-", "--abi", "vm_event-7", "--format", "jsonl", stdin=page.ljust(4096, b"\0")
    )
    assert outcome.code == 0, outcome.stderr
    (record,) = outcome.records
    assert record["write_ctrlreg"] == {
        "index": 1,
        "new_value": "0x103000",
        "old_value": "0x102000",
        "register": "cr3",
    }
    assert (record["vcpu_id"], record["flags"], record["ring_index"]) == (3, ["vcpu_paused"], 1)
    assert record["regs"]["rip"] == "0x100070"
    assert record["regs"]["dr6"] is None


def test_all_prints_every_slot(tmp_path: Path) -> None:
    page = tmp_path / "ring.bin"
    page.write_bytes(golden_page("vm_event-v7-4.18/s4").page)
    assert xenintro("decode", str(page), "--abi", "vm_event-7", "--format", "jsonl").stdout == ""
    every = xenintro("decode", str(page), "--abi", "vm_event-7", "--format", "jsonl", "--all")
    assert len(every.records) == 8


def test_impossible_indices_exit_7(tmp_path: Path) -> None:
    page = tmp_path / "ring.bin"
    page.write_bytes(golden_page("vm_event-v7-4.18/bad1").page)
    outcome = xenintro("decode", str(page), "--abi", "vm_event-7")
    assert outcome.code == 7
    assert outcome.stdout == ""
    assert len(outcome.error) == 3
    assert "impossible ring indices" in outcome.error[0]


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_what_is_not_a_page_exits_7(size: int) -> None:
    outcome = xenintro("decode", "-", "--abi", "vm_event-7", stdin=bytes(size))
    assert outcome.code == 7
    assert f"{min(size, 4096)} bytes" in outcome.error[0]


def test_an_endless_file_is_not_read_to_its_end() -> None:
    outcome = xenintro("decode", "/dev/zero", "--abi", "vm_event-7")
    assert outcome.code == 7
    assert "more than 4096 bytes" in outcome.error[0]


def test_the_wrong_interface_is_remarked_on(tmp_path: Path) -> None:
    page = tmp_path / "ring.bin"
    page.write_bytes(golden_page("vm_event-v7-4.18/s1").page)
    outcome = xenintro("decode", str(page), "--abi", "vm_event-5")
    assert "slots say interface version 7, not vm_event-5" in outcome.stderr


def test_an_unknown_interface_exits_2() -> None:
    outcome = xenintro("decode", "-", "--abi", "vm_event-9", stdin=bytes(4096))
    assert outcome.code == 2
    assert "vm_event-7" in outcome.stderr


def test_the_human_line_has_no_colour_in_a_pipe(tmp_path: Path) -> None:
    page = tmp_path / "ring.bin"
    page.write_bytes(golden_page("vm_event-v7-4.18/s1").page)
    outcome = xenintro("decode", str(page), "--abi", "vm_event-7")
    assert "\x1b" not in outcome.stdout
    assert re.search(r"v0 +mem_access +rwx  gfn 0x539e0d0500", outcome.stdout)
    coloured = xenintro("decode", str(page), "--abi", "vm_event-7", "--color", "always")
    assert "\x1b[" in coloured.stdout
