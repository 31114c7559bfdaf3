"""Lines of chosen fields."""

from __future__ import annotations

import pytest

from tests.policy.events import GUEST, answered, make_event
from xenintro.errors import ExpressionError
from xenintro.policy.language.columns import Columns

WRITE = make_event(
    "mem_access", payload={"gfn": 0x1005, "offset": 16, "flags": 10}, registers={"rip": 0}, paused=True
)
CPUID = make_event("cpuid", payload={"leaf": 1}, vcpu_id=3)


class Rule:
    name, level, tags = "idt\tpage", None, ("T1014", "x")

    def message(self, event: object) -> str:
        return "write\nto the IDT"


def test_rows() -> None:
    columns = Columns(
        "seq,ts, gfn,offset,access,regs.rip,dr6,reason,flags,gla_valid,late,pause_ns,domain,leaf,cs.ar"
    )
    assert columns.header.split("\t")[:3] == ["seq", "ts", "gfn"]
    assert columns.row(answered(WRITE), GUEST, ts="now", seq=0).split("\t") == [
        *(
            "0",
            "now",
            "0x1005",
            "0x10",
            "w",
            "0x0",
            "-",
            "mem_access",
            "vcpu_paused",
            "true",
            "false",
            "1000",
        ),
        *("tiny", "-", "0"),
    ]
    assert columns.row(answered(CPUID), GUEST, ts="now", seq=7).split("\t") == [
        *("7", "now", "-", "-", "-", "0x0", "-", "cpuid", "-", "-", "false", "-", "tiny", "1", "0"),
    ]


def test_what_a_rule_says_stays_on_its_line() -> None:
    row = Columns("rule,level,tags,message,would").row(
        answered(WRITE, rule=Rule(), would="deny"), GUEST, ts="", seq=0
    )
    assert row == "idt page\t-\tT1014,x\twrite to the IDT\tdeny"
    assert Columns("rule,message").row(answered(WRITE), GUEST, ts="", seq=0) == "-\t-"


@pytest.mark.parametrize(
    ("text", "marked", "words"),
    [
        ("gfn, gfm", "gfm", "did you mean gfn?"),
        ("gfn,sequence", "sequence", ""),
        ("mesage", "mesage", "did you mean message?"),
        ("gfn,,rip", ",", "a field is missing"),
        ("cpl()", "cpl()", "unknown field"),
    ],
)
def test_mistakes(text: str, marked: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Columns(text)
    assert text[caught.value.offset :][: caught.value.length] == marked
    assert words in " ".join(caught.value.lines())
