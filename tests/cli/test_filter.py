"""``--filter`` and ``--format fields``: what is shown of events, live and recorded; all are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import xenintro
from tests.cli.simulated import simulated_host

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
[[rule]]
name = "all-cpuid"
on = "cpuid"
answer = "allow"
say = "leaf {leaf}"
"""


@pytest.fixture
def rules(tmp_path: Path) -> str:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return str(path)


def test_only_what_it_holds_for_is_shown_and_counted(rules: str) -> None:
    with simulated_host(vcpus=2) as host:
        outcome = host.run(
            *("watch", "-d", "1", "-e", "cr3,cpuid,int3", "-p", rules, "--format", "jsonl", "-c", "20"),
            *("-f", 'vcpu_id == 1 and (rule == "all-cpuid" or write_ctrlreg.new_value & 0xfff == 0)'),
        )
        assert outcome.code == 0, outcome.stderr
        assert {record["vcpu_id"] for record in outcome.records} == {1}
        assert {record["reason"] for record in outcome.records} == {"cpuid", "write_ctrlreg"}
        assert [record["seq"] for record in outcome.records] == list(range(20))
        assert "(20 shown)" in outcome.stderr
        host.assert_untouched()


def test_the_policy_is_asked_about_what_is_not_shown(rules: str) -> None:
    with simulated_host() as host:
        outcome = host.run(
            *(
                "watch",
                "-d",
                "1",
                "-e",
                "cr3,cpuid",
                "-p",
                rules,
                "-c",
                "30",
                "-f",
                'reason == "write_ctrlreg"',
            )
        )
        assert outcome.code == 0, outcome.stderr
        assert "cpuid" not in outcome.stdout
        assert "all-cpuid" in outcome.stderr


def test_fields_have_a_header_and_a_line_each() -> None:
    with simulated_host() as host:
        outcome = host.run(
            *("watch", "-d", "1", "-e", "cr3,cpuid", "-c", "9", "-q"),
            *("--format", "fields", "-F", "seq,domain,reason,new_value,leaf,regs.rip"),
        )
    assert outcome.code == 0, outcome.stderr
    header, *rows = [line.split("\t") for line in outcome.stdout.splitlines()]
    assert header == ["seq", "domain", "reason", "new_value", "leaf", "regs.rip"]
    assert [row[0] for row in rows] == [str(number) for number in range(9)]
    for _, domain, reason, new_value, leaf, rip in rows:
        assert domain == "tiny"
        assert (new_value == "-") is (reason == "cpuid")
        assert (leaf == "-") is (reason == "write_ctrlreg")
        assert int(rip, 16) > 0


def test_of_a_capture(tmp_path: Path, rules: str) -> None:
    capture = str(tmp_path / "guest.pcapng")
    with simulated_host() as host:
        outcome = host.run(
            *("watch", "-d", "1", "-e", "cr3,cpuid", "-p", rules, "-c", "40", "-q", "-w", capture),
            *("--format", "jsonl", "-f", "late"),
            *("-t", "2s"),
        )
        assert outcome.code == 0, outcome.stderr
        assert outcome.stdout == ""
    condition = 'reason == "cpuid" and rule == "all-cpuid" and domid == 1'
    shown = xenintro(
        "watch", "-r", capture, "-c", "5", "-f", condition, "--format", "fields", "-F", "rule,message"
    )
    assert shown.code == 0, shown.stderr
    header, *rows = shown.stdout.splitlines()
    assert header == "rule\tmessage"
    assert len(rows) == 5
    assert all(row.startswith("all-cpuid\tleaf ") for row in rows)
    replayed = xenintro("replay", capture, "-p", rules, "-q", "--format", "jsonl", "-f", condition)
    assert replayed.code == 0, replayed.stderr
    assert {record["rule"] for record in replayed.records} == {"all-cpuid"}


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            ["-f", "gfn == 1 and gfm == 2"],
            [
                "error: --filter: unknown name gfm",
                "  gfn == 1 and gfm == 2",
                "               ^~~",
                "  did you mean gfn?",
            ],
        ),
        (
            ["--format", "fields", "-F", "ts,gfm"],
            ["error: --fields: unknown field gfm", "  ts,gfm", "     ^~~"],
        ),
        (["--format", "fields"], ["error: --format fields and -F go together"]),
        (["-F", "gfn"], ["error: --format fields and -F go together"]),
    ],
)
def test_mistakes_are_marked_before_anything_is_touched(options: list[str], lines: list[str]) -> None:
    outcome = xenintro("watch", "-d", "1", *options)
    assert outcome.code == 2
    assert outcome.error[: len(lines)] == lines
