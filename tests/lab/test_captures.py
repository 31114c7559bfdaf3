"""What was recorded on real Xens, read, replayed and compared without one. How it was made: record.py."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.capture.wireshark import Tshark, needs_tshark
from tests.cli.runner import xenintro
from tests.lab.captures import CAPTURES, RULES, names, opened, path_of
from tests.lab.guest.expected import Want, events, watch_all
from tests.lab.releases import RELEASES
from tests.lab.scenario import number
from xenintro.abi import Flag
from xenintro.codec import acknowledge
from xenintro.export import FORMATS
from xenintro.sinks.jsonl import event_record

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED, ENFORCED = names(rules=False), names(rules=True)

#: What "allow" asks of Xen beside letting the vCPU run, by reason.
_FLAGS = {
    "mem_access": Flag.EMULATE,
    "descriptor_access": Flag.EMULATE,
    "cpuid": Flag.SET_REGISTERS,
}

#: A rule of rules.toml that is left out, and what its events are answered then.
_LEFT_OUT = ("keep-lstar", "deny", "allow")


def test_there_are_some() -> None:
    assert {"svm-4.17", "vmx-4.17"} <= set(ALLOWED) & set(ENFORCED)


@pytest.mark.parametrize("name", ALLOWED)
def test_requests(name: str) -> None:
    cpu, xen = name.split("-")
    wanted = events(*watch_all(cpu))
    with opened(name) as capture:
        records = [event_record(answered.event) for answered in capture]
        assert capture.damage is None
        assert capture.info.abi == RELEASES[xen].abi
    got = [
        Want(record["reason"], {key: number(record[record["reason"]].get(key)) for key in want.payload})
        for record, want in zip(records, wanted, strict=True)
    ]
    assert got == wanted


@pytest.mark.parametrize("name", ALLOWED)
def test_responses(name: str) -> None:
    """What Xen took for an answer: the echo, and the flags that let this reason happen."""
    with opened(name) as capture:
        for answered in capture:
            header = bytearray(acknowledge(answered.event.raw, capture.interface)[:16])
            flags = Flag.VCPU_PAUSED | _FLAGS.get(answered.event.reason, 0)
            header[4:8] = int(flags).to_bytes(4, "little")
            assert answered.response[:16] == header


@pytest.mark.parametrize("name", ALLOWED)
def test_replay_equals_live_where_all_was_allowed(name: str) -> None:
    done = xenintro("replay", _file(name, rules=False), "--verify")
    assert done.code == 0, done.stderr
    assert "answers are identical" in done.stderr


@pytest.mark.parametrize("name", ENFORCED)
def test_replay_equals_live_with_rules(name: str) -> None:
    done = xenintro("replay", _file(name, rules=True), "-p", str(RULES), "--verify")
    assert done.code == 0, done.stderr
    assert "answers are identical" in done.stderr


@pytest.mark.parametrize("name", ENFORCED)
def test_every_rule_had_a_say(name: str) -> None:
    with opened(name, rules=True) as capture:
        by_rule = Counter(answered.rule.name for answered in capture if answered.rule is not None)
    pages = {"page-keeps-its-content"} if name.startswith("vmx") else set()
    assert set(by_rule) == {"keep-cr4-pge", "keep-lstar", "empty-leaf", "answered-request"} | pages


@pytest.mark.parametrize("name", ENFORCED)
def test_a_changed_rule_changes_its_answers_and_no_others(name: str, tmp_path: Path) -> None:
    rule, before, after = _LEFT_OUT
    changed = tmp_path / "changed.toml"
    changed.write_text(RULES.read_text().replace(f'name   = "{rule}"', f'enabled = false\nname = "{rule}"'))
    capture = _file(name, rules=True)
    with opened(name, rules=True) as recorded:
        rules = [answered.rule.name if answered.rule else None for answered in recorded]
    differ = f"{rules.count(rule)} of {len(rules)}"
    verified = xenintro("replay", capture, "-p", str(changed), "--verify")
    assert verified.code == 8
    assert f"{differ} answers differ; the first, request {rules.index(rule)}:" in verified.stderr
    diff = xenintro("policy", "diff", str(RULES), str(changed), "-r", capture)
    assert diff.stdout.startswith(f"{differ} requests are answered otherwise")
    assert f"{rules.count(rule)} x  {before} ({rule}) → {after}" in diff.stdout


@pytest.mark.parametrize("name", ENFORCED)
def test_explain_says_what_was_true(name: str) -> None:
    with opened(name, rules=True) as recorded:
        seq = next(at for at, one in enumerate(recorded) if one.rule and one.rule.name == _LEFT_OUT[0])
    done = xenintro("policy", "explain", str(RULES), _file(name, rules=True), "--seq", str(seq))
    assert done.code == 0, done.stderr
    assert "keep-lstar" in done.stdout
    assert "msr == LSTAR" in done.stdout
    assert "deny" in done.stdout


@pytest.mark.parametrize("rules", [False, True])
@pytest.mark.parametrize("name", ALLOWED)
def test_exports_have_every_event(name: str, rules: bool, tmp_path: Path) -> None:
    with opened(name, rules=rules) as recorded:
        reasons = Counter(answered.event.reason for answered in recorded)
    inspected = xenintro("inspect", _file(name, rules=rules), "--format", "jsonl")
    assert inspected.code == 0, inspected.stderr
    assert {reason: one["count"] for reason, one in inspected.records[0]["reasons"].items()} == reasons
    for form in FORMATS:
        out = tmp_path / form
        exported = xenintro("export", _file(name, rules=rules), "--to", form, "-o", str(out))
        assert exported.code == 0, exported.stderr
        assert out.exists()
    lines = (tmp_path / "jsonl").read_text().splitlines()
    assert Counter(json.loads(line)["reason"] for line in lines) == reasons


@needs_tshark
@pytest.mark.parametrize("name", ENFORCED)
def test_tshark_reads_it(name: str, tmp_path: Path) -> None:
    tshark, capture = Tshark(tmp_path), path_of(*name.split("-"), rules=True)
    with opened(name, rules=True) as recorded:
        denied = sum("deny" in answered.answer for answered in recorded)
    (requests,) = tshark.selected(capture, ['vm_event.direction == "request"'])
    (denials,) = tshark.selected(capture, ['vm_event.answer == "deny"'])
    with opened(name, rules=True) as recorded:
        assert len(requests) == sum(1 for _ in recorded)
    assert len(denials) == denied > 0


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in CAPTURES.iterdir()) < 500_000


def _file(name: str, *, rules: bool) -> str:
    return str(path_of(*name.split("-"), rules=rules))
