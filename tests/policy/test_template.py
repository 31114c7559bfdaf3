"""Texts of rules."""

from __future__ import annotations

import pytest

from tests.policy.events import GUEST, make_event
from xenintro.errors import ExpressionError
from xenintro.policy.language.template import compile_template

LSTAR = make_event(
    "mov_to_msr",
    payload={"msr": 0xC0000082, "new_value": 0x81, "old_value": 3},
    registers={"rip": 0xFFFF800000001000},
    paused=True,
)
OLD = make_event("mov_to_msr", "vm_event-1", payload={"msr": 0x10, "value": 1})


@pytest.mark.parametrize(
    ("text", "said", "of_old"),
    [
        ("", "", ""),
        ("nothing {{}} new", "nothing {} new", "nothing {} new"),
        (
            "{register} {old_value:#x} -> {new_value:#x} from {rip}",
            "lstar 0x3 -> 0x81 from 0xffff800000001000",
            "tsc - -> 0x1 from 0x0",
        ),
        ("{msr} on v{vcpu_id}, {flags}", "0xc0000082 on v0, vcpu_paused", "0x10 on v0, -"),
        (
            "{new_value:d}|{new_value:6}|{new_value:08x}|{new_value:,}",
            "129|   129|00000081|129",
            "1|     1|00000001|1",
        ),
        ("{register:>8}|{register:.2}|{register:<6}|", "   lstar|ls|lstar |", "     tsc|ts|tsc   |"),
        ("{old_value ^ new_value} {changed(1)}", "0x82 false", "- false"),
        ("{flags.vcpu_paused}{flags.vcpu_paused:>6}", "true  true", "false false"),
        (
            "{ reason } of {domain} ({domid}), cpl {cpl()}",
            "mov_to_msr of tiny (7), cpl 0",
            "mov_to_msr of tiny (7), cpl -",
        ),
        ("{limit} é {'x'}", "16 é x", "16 é x"),
    ],
)
def test_what_it_says(text: str, said: str, of_old: str) -> None:
    template = compile_template(text, "mov_to_msr", names={"limit": 16})
    assert template(LSTAR, GUEST) == said
    assert template(OLD, GUEST) == of_old


def test_fields() -> None:
    assert compile_template("{{x}} {msr} {rip:#x}", "mov_to_msr").fields == ("msr", "rip")


@pytest.mark.parametrize(
    ("text", "marked", "words"),
    [
        ("on {rpi}", "rpi", "did you mean rip?"),
        ("{gfn}", "gfn", "mem_access"),
        ("{answer}", "answer", "once the rules have answered"),
        ("{message}", "message", "only outputs"),
        ("{", "{", "write {{"),
        ("}", "}", "write {{"),
        ("{rip} {msr", "{", "write {{"),
        ("{}", "", "empty"),
        ("{0}{rip!r}", "!", ""),
        ("{rip.__class__}", "rip.__class__", "unknown name"),
        ("{rip[0]}", "rip[0]", "no such thing"),
        ("{rip:s}", "s", "not a format"),
        ("{rip:100}", "100", "not a format"),
        ("{rip:999999999}", "999999999", "not a format"),
        ("{register:x}", "x", "not a format"),
        ("{register:.999}", ".999", "not a format"),
        ("{rip:,x}", ",x", "Cannot specify"),
        ("{limits}", "limits", "a list is no value"),
        ("{prev(rip)}", "prev(rip)", "remembers nothing"),
        ("{seen(1, '1s')}", "seen(1, '1s')", "remembers nothing"),
        ("x" * 5000, "x" * 904, "4096 characters"),
    ],
)
def test_mistakes(text: str, marked: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template(text, "mov_to_msr", names={"limits": [1]})
    error = caught.value
    if marked:
        assert text[error.offset : error.offset + error.length] == marked
    assert words in " ".join(error.lines())
