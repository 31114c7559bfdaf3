"""What people see of rules while they have a say: behind the line, in the summary, in the metrics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.simulated import simulated_host
from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.answered import Answered
from xenintro.capture import RecordedRule
from xenintro.codec import decode
from xenintro.errors import RuleError
from xenintro.service.totals import Totals
from xenintro.session import Summary
from xenintro.sinks.text import Lines
from xenintro_cli.style import Style
from xenintro_cli.summary import summary_lines

if TYPE_CHECKING:
    from pathlib import Path

V7 = interface("vm_event-7")
CR3 = decode(make_slot(V7, 4, payload={"index": 1, "new_value": 0x103000}, paused=True), V7)
NOTE = "known-cr3  cr3 0x103000 from 0xffffffff81000000"


def line(width: int | None, note: str = NOTE, *, utf8: bool = True) -> str:
    lines = Lines(Style(color=False, utf8=utf8), width, noted=True)
    return lines.line(CR3, time_ns=10**18, answer="would deny", pause_ns=27_000, note=note)


def test_a_note_stands_behind_the_columns_as_far_as_there_is_room() -> None:
    assert line(None).endswith(f"27 µs  {NOTE}")
    assert line(240).endswith(f"27 µs  {NOTE}")
    assert line(140).endswith("27 µs  known-cr3  cr3 0x103000 from…")
    assert line(140, utf8=False).endswith("27 us  known-cr3  cr3 0x103000 fr...")
    assert line(80).endswith("WOULD DENY")
    for width in range(80, 240):
        assert len(line(width)) <= width


@pytest.mark.parametrize("width", [None, 120, 160])
def test_without_a_note_nothing_is_added(width: int | None) -> None:
    assert line(width, "").endswith("27 µs")
    assert "\n" not in line(width, "two\nlines")


def test_the_header_fits_the_columns() -> None:
    lines = Lines(Style(color=False, utf8=True), None, noted=True)
    assert lines.header().index("answer") == line(None).index("WOULD DENY")


def answered(rule: str, answer: str = "allow", would: str | None = None) -> Answered:
    return Answered(CR3, answer, b"", 0, 1000, RecordedRule(rule, None, (), None), would)


def test_the_summary_counts_what_each_rule_said() -> None:
    summary = Summary()
    for one in [answered("b", would="deny")] * 3 + [answered("c", "deny"), answered("d")]:
        summary.count(one)
    summary.policy_errors = 2
    summary.errors["a-rule"] = 2
    text = summary_lines(
        *(summary,),
        name="tiny",
        nr_vcpus=1,
        unanswered=0,
        deadline=0.25,
        style=Style(color=False, utf8=True),
        rules=["a-rule", "b", *(f"long-name-of-rule-{number}" for number in range(9))],
    )
    assert "  rules: a-rule 0, b 3 (would deny), long-name-of-rule-0 0," in text[-4]
    assert " ".join(text[-4:-1]).endswith("c 1 (deny), d 1")
    assert all(len(one) <= 100 for one in text)
    assert text[-1] == "  2 decisions failed (a-rule 2); those events were allowed"


def test_watch_shows_rule_and_message(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nname = "freeze"\non = "mov_to_msr"\nanswer = "deny"\nsay = "{register} from {rip}"\n'
        '[[rule]]\nname = "never"\non = "cpuid"\n'
    )
    with simulated_host() as host:
        outcome = host.run("watch", "-d", "1", "-e", "msr:lstar", "-p", str(rules), "-c", "3")
        host.assert_untouched()
    assert outcome.code == 0, outcome.stderr
    lines = outcome.stdout.splitlines()[1:]
    assert len(lines) == 3
    assert all("WOULD DENY" in line and "  freeze  lstar from 0xffff8" in line for line in lines)
    assert re.search(r"  rules: freeze \d+ \(would deny\), never 0\n", outcome.stderr)


def test_metrics_by_rule() -> None:
    pytest.importorskip("prometheus_client")
    from xenintro.service.metrics import families

    totals, summary = Totals(), Summary()
    totals.begin(summary)
    totals.count([answered("freeze", would="deny")] * 3)
    totals.count([answered("freeze", "deny")], enforce=True)
    summary.policy_errors = 3
    summary.errors[RuleError("freeze", ValueError()).rule] = 2
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(totals, "tiny", attached=True, dropped=0, captured=0, build={})
        for sample in family.samples
    }
    assert samples["xenintro_rule_matches_total", "tiny", "freeze", "observe"] == 3
    assert samples["xenintro_rule_matches_total", "tiny", "freeze", "enforce"] == 1
    assert samples["xenintro_policy_errors_total", "tiny", "freeze"] == 2
    assert samples["xenintro_policy_errors_total", "tiny", ""] == 1
    totals.end()
    assert totals.errors == {"freeze": 2, "": 1}
