"""The table of fields says what events, layouts and JSON lines have."""

from __future__ import annotations

from typing import Any

import pytest

from tests.policy.events import GUEST, answered
from tests.slots import make_slot
from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, interface
from xenintro.codec import decode
from xenintro.events import EVENT_TYPES
from xenintro.fields import FIELDS, always_there, interfaces_of, plain_fields
from xenintro.policy.language.columns import Columns
from xenintro.sinks.answered import AnsweredLines
from xenintro.sinks.jsonl import event_record

#: The header's own members in mem_event's payloads, and what older headers call new_value, are in JSON only.
_ONLY_IN_JSON = {
    *(
        "type",
        "gfn",
        "offset",
        "gla",
        "p2mt",
        "access_r",
        "access_w",
        "access_x",
        "gla_valid",
        "fault_with_gla",
    ),
    *("fault_in_gpt", "value"),
}


def layouts() -> list[Any]:
    return [interface(abi, arch) for abi in INTERFACE_IDS for arch in ARCHITECTURES]


def every_event() -> list[Any]:
    return [
        decode(make_slot(layout, code, paused=True), layout)
        for layout in layouts()
        for code in (layout.reasons or {0: "mem_paging"})
    ]


def leaves(record: dict[str, Any], reason: str) -> dict[str, Any]:
    """The values of a JSON line by the names of fields."""
    found = {}
    for key, value in record.items():
        prefix = {reason: reason, "regs": "regs"}.get(key)
        if prefix is None or value is None:
            found[key] = value
            continue
        for name, one in value.items():
            parts = one if isinstance(one, dict) else {"": one}
            found |= {f"{prefix}.{name}.{part}".rstrip("."): inner for part, inner in parts.items()}
    return found


@pytest.mark.parametrize("layout", layouts(), ids=repr)
def test_every_key_of_a_json_line_is_a_field(layout: Any) -> None:
    for code, reason in (layout.reasons or {0: "mem_paging"}).items():
        event = decode(make_slot(layout, code), layout)
        keys = leaves(event_record(event), reason)
        unknown = {key for key in keys if key not in FIELDS and keys[key] is not None}
        assert {key.removeprefix(f"{reason}.") for key in unknown} <= _ONLY_IN_JSON, reason
        if layout.family == "vm_event":
            assert not {key for key in unknown if not key.endswith(".value")}


def test_every_field_has_the_value_of_the_json_line() -> None:
    names = [name for name, field in FIELDS.items() if field.of in ("event", "registers")]
    columns = Columns(",".join(names))
    for event in every_event():
        keys = leaves(event_record(event), event.reason)
        row = dict(zip(names, columns.row(answered(event), GUEST, ts="", seq=0).split("\t"), strict=True))
        for name, value in keys.items():
            if name not in FIELDS or not value:
                continue
            if name == "mem_paging.p2mt":  # wider in Xen 4.0.0
                value = int(str(value), 0)
            text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
            assert row[name] == (text or (",".join(value) if isinstance(value, list) else str(value))), name


def test_the_keys_around_the_event_are_fields_too() -> None:
    class Rule:
        name, level, tags = "r", "critical", ("x",)

        def message(self, event: object) -> str:
            return "m"

    event = every_event()[-1]
    lines = AnsweredLines(1, "tiny")
    import json

    record = json.loads(lines.line(answered(event, rule=Rule(), would="deny", late=True), 0))
    rest = set(record) - {"v", event.reason, "regs"}
    assert rest <= set(FIELDS), rest - set(FIELDS)


def test_what_is_always_there_is_never_absent() -> None:
    names = [name for name, field in FIELDS.items() if field.of == "event"]
    columns = Columns(",".join(names))
    for event in every_event():
        row = dict(zip(names, columns._values(answered(event), GUEST), strict=True))
        for name, field in FIELDS.items():
            if name not in row or (field.reason not in (None, event.reason)):
                continue
            if always_there(field):
                assert row[name] is not None, (name, event)
            if event.interface.id not in interfaces_of(name) and not field.bit:
                assert row[name] is None, (name, event)


def test_registers_are_those_of_the_layouts() -> None:
    named = {field.key.partition(".")[0] for field in FIELDS.values() if field.of == "registers"}
    assert named == {name for layout in layouts() for name in layout.registers}


def test_flags_are_those_of_the_interfaces() -> None:
    named = {field.bit for field in FIELDS.values() if field.name.startswith("flags.")}
    assert named == {name for layout in layouts() for name in layout.flag_names.values()}


def test_plain_names_are_of_one_kind_everywhere() -> None:
    kinds: dict[str, set[str]] = {}
    for reason in EVENT_TYPES:
        for name, field in plain_fields(reason).items():
            kinds.setdefault(name, set()).add(field.kind)
    assert {name for name, found in kinds.items() if len(found) > 1} == set()
