"""``xenintro policy fields``: the words of the language, for people and programs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from xenintro.errors import UsageError
from xenintro.fields import FIELDS
from xenintro_cli.policy_fields import command


def shown(*args: str) -> str:
    outcome = CliRunner().invoke(command, args, catch_exceptions=False)
    assert outcome.exit_code == 0
    return outcome.output


def test_people_see_every_field_function_and_name() -> None:
    text = shown()
    assert all(f"  {name} " in text for name in FIELDS)
    assert "write_ctrlreg.old_value  u64     value before (mem_event-pre-rfc3 on)" in text
    assert 'seen(n, "1s")' in text
    assert "CR4_SMEP" in text


def test_of_one_event() -> None:
    text = shown("mem_access")
    assert "mem_access.gfn" in text
    assert "regs.rip" in text
    assert "cpuid." not in text


def test_programs_get_a_document() -> None:
    document = json.loads(shown("--format", "json"))
    by_name = {field["name"]: field for field in document["fields"]}
    assert set(by_name) == set(FIELDS)
    assert by_name["mov_to_msr.old_value"] == {
        "name": "mov_to_msr.old_value",
        "plain": "old_value",
        "kind": "int",
        "bits": 64,
        "event": "mov_to_msr",
        "in": ["rules", "filters", "outputs"],
        "interfaces": [f"vm_event-{version}" for version in range(3, 8)],
        "meaning": "value before",
    }
    assert by_name["answer"]["in"] == ["filters", "outputs"]
    assert document["numbers"]["LSTAR"] == "0xc0000082"
    assert {one["name"] for one in document["functions"]} >= {"cpl", "pages", "seen"}


def test_an_event_that_is_none() -> None:
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(command, ["mem_acess"], catch_exceptions=False)
    assert caught.value.hint == "did you mean mem_access?"
