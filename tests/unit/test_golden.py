"""Every golden page decodes to its JSON, whatever the interface and architecture."""

from __future__ import annotations

from typing import Any

import pytest

from tests.golden import GoldenPage, golden_pages
from xenintro.abi import SLOT0
from xenintro.codec import decode
from xenintro.errors import DamagedInputError
from xenintro.ringpage import RingPage
from xenintro.sinks.jsonl import event_record

#: mem_event's reasons under the names that vm_event gave them.
MEM_EVENT_REASONS = {
    "VIOLATION": "mem_access",
    "CR0": "write_ctrlreg",
    "CR3": "write_ctrlreg",
    "CR4": "write_ctrlreg",
    "INT3": "software_breakpoint",
    "MSR": "mov_to_msr",
    "NONE": "mem_paging",
    "?": "unknown",
}

#: Header members of mem_event that are not payload.
MEM_EVENT_HEADER = {"index", "slot", "flags", "vcpu_id", "reason", "reason_name", "flag_names"}


def number(value: Any) -> Any:
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


def expected_reason(request: dict[str, Any], known_version: bool) -> str:
    if not known_version:
        return "unknown"
    name = request["reason_name"].split("REASON_")[-1]
    return MEM_EVENT_REASONS.get(name, name.lower())


def expected_payload(request: dict[str, Any]) -> dict[str, Any]:
    if "version" in request:
        return {name.split(".")[-1]: value for name, value in request["payload"].items()}
    skip = MEM_EVENT_HEADER | {"payload_member", "payload", "regs"}
    return {name: value for name, value in request.items() if name not in skip}


def test_the_whole_history_is_covered() -> None:
    assert len(golden_pages()) == 240
    assert {page.interface.id for page in golden_pages()} >= {
        "mem_event-rfc3",
        "vm_event-1",
        "vm_event-7",
    }


def test_page_decodes_to_its_json(golden: GoldenPage) -> None:
    layout = golden.interface
    ring = golden.expected["ring"]
    assert (layout.slot_size, layout.nr_slots) == (ring["slot_size"], ring["nr_slots"])
    for request in golden.expected["requests"] + golden.expected["held_requests"]:
        start = SLOT0 + request["slot"] * layout.slot_size
        event = decode(golden.page[start : start + layout.slot_size], layout)
        record = event_record(event)
        known_version = request.get("version") == layout.version
        assert record["reason"] == expected_reason(request, known_version)
        assert record["vcpu_id"] == request["vcpu_id"]
        assert event.flags == request["flags"]
        assert record["flags"] == [name.split("FLAG_")[1].lower() for name in request["flag_names"]]
        assert record.get("altp2m_idx") == request.get("altp2m_idx")
        if record["reason"] == "unknown":
            assert record["unknown"]["reason_code"] == request["reason"]
        else:
            payload = {name: number(value) for name, value in record[record["reason"]].items()}
            expected = expected_payload(request)
            assert {name: payload[name] for name in expected} == expected
        check_registers(golden, request, record, known_version)


def check_registers(
    golden: GoldenPage, request: dict[str, Any], record: dict[str, Any], known_version: bool
) -> None:
    if request["regs"] is None or not known_version:
        assert record["regs"] is None
        return
    unfilled = golden.interface.unfilled(record["reason"])
    assert record["regs"].keys() == request["regs"].keys()
    for name, expected in request["regs"].items():
        value = record["regs"][name]
        if value is None:
            assert name in unfilled
            assert expected == 0
        else:
            assert number(value) == expected


def test_unanswered_requests_are_found(golden: GoldenPage) -> None:
    if golden.expected["expect_error"] == "overflow":
        with pytest.raises(DamagedInputError, match="impossible ring indices"):
            RingPage(golden.page, golden.interface)
        return
    expected = golden.expected["held_requests"] + golden.expected["requests"]
    found = RingPage(golden.page, golden.interface).requests()
    assert [(slot.ring_index, slot.slot) for slot in found] == [(r["index"], r["slot"]) for r in expected]


def test_control_register_events_of_mem_event_name_register_and_values() -> None:
    page = next(p for p in golden_pages() if p.name == "mem_event-rfc3/s1")
    request = next(r for r in page.expected["requests"] if r["reason_name"].endswith("CR3"))
    start = SLOT0 + request["slot"] * page.interface.slot_size
    record = event_record(decode(page.page[start : start + page.interface.slot_size], page.interface))
    payload = record["write_ctrlreg"]
    assert payload["register"] == "cr3"
    assert payload["index"] == 1
    assert payload["new_value"] == hex(request["gfn"])
    assert payload["old_value"] == hex(request["gla"])
