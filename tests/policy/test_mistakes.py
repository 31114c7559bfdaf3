"""Mistakes are found when a condition is read, marked, and answered with the right word."""

from __future__ import annotations

import pytest

from xenintro.errors import ExpressionError
from xenintro.policy.language.expression import compile_expression, compile_filter

NAMES = {"pages_": ["0x1000-"], "msrs": ["LSTRA"], "hot": [1, 2]}


@pytest.mark.parametrize(
    ("text", "marked", "words"),
    [
        ("gfn == 1 and acess.w", "acess.w", "did you mean access.w?"),
        ("gfm == 1", "gfm", "did you mean gfn?"),
        ("GFN == 1", "GFN", "did you mean gfn?"),
        ("msr == 1", "msr", "mov_to_msr has it"),
        ("mov_to_msr.msr == 1", "mov_to_msr.msr", "mov_to_msr has it"),
        ("answer == 'deny'", "answer", "known once the rules have answered"),
        ("seq == 1", "seq", "only outputs have it"),
        ("gfn", "gfn", "write gfn != 0"),
        ("gfn and access.w", "gfn", "write gfn != 0"),
        ("not gfn", "gfn", "write gfn != 0"),
        ("'x'", "'x'", "where a condition"),
        ("gfn == 'x'", "'x'", "compared with the string 'x'"),
        ("gfn == '0x10'", "'0x10'", "without quotes"),
        ("access == 'wr'", "'wr'", "did you mean"),
        ("access < 'w'", "'w'", "neither less nor more"),
        ("'w' in access", "access", "write access.w"),
        ("reason == 'mem_acess'", "'mem_acess'", 'did you mean "mem_access"?'),
        ("abi in ('vm_event-7', 'vm_event-8')", "'vm_event-8'", "is never"),
        ("gfn in (1, 'x')", "'x'", "ranges are written"),
        ("gfn in pages_", "pages_", "pages_: '0x1000-' is no number"),
        ("gfn in pages('2-1')", "pages('2-1')", "no number"),
        ("gfn in (1, rip)", "rip", "a list has numbers and strings"),
        ("gfn in gfn", "gfn", "is no list"),
        ("gfn == hot", "hot", "write in"),
        ("access in hot", "hot", "a number, and looked up is a string"),
        ("1 in hot", "1", "always the same"),
        ("rip in pages(1)", "pages(1)", "an address"),
        ("gfn in hot in hot", "gfn in hot in hot", "cannot be chained"),
        ("gfn == 1 in hot", "gfn == 1 in hot", "cannot be chained"),
        ("flags == 1", "flags", "write flags.vcpu_paused"),
        ("'deny' in flags", "'deny' in flags", "write flags.vcpu_paused"),
        ("flags.vcpu_pausd", "flags.vcpu_pausd", "did you mean flags.vcpu_paused?"),
        ("cpl == 0", "cpl", "write cpl()"),
        ("cpl(1) == 0", "cpl(1)", "write cpl()"),
        ("clp() == 0", "clp", "did you mean cpl?"),
        ("changed(1)", "changed(1)", "write_ctrlreg and mov_to_msr have them"),
        ("bit(gfn, 64)", "64", "from 0 to 63"),
        ("bit(gfn, gfn)", "gfn", "from 0 to 63"),
        ("bits(gfn, gfn)", "gfn", "a mask is a constant"),
        ("bit(access, 1)", "access", "where a number is needed"),
        ("has(1)", "1", "only a field"),
        ("prev(gfn + 1) == 1", "gfn + 1", "prev takes a field"),
        ("seen(0, '1s')", "0", "from 1 to"),
        ("seen(2, 1)", "1", "is a string"),
        ("seen(2, '1 year')", "'1 year'", "not a duration"),
        ("seen(2, '25h')", "'25h'", "a day at most"),
        ("seen(2, '1s', access.w)", "access.w", "a number or a string"),
        ("1 << gfn == 1", "1 << gfn", "from 0 to 63"),
        ("gfn << 64 == 1", "gfn << 64", "from 0 to 63"),
        ("gfn // 0 == 1", "gfn // 0", "division by zero"),
        ("gfn / 2 == 1", "gfn / 2", "write //"),
        ("gfn ** 2 == 1", "gfn ** 2", "power"),
        ("gfn * gfn * gfn * gfn * gfn == 1", "gfn * gfn * gfn * gfn * gfn", "320 bits"),
        (
            "bits(gfn, 1 << 63 << 63 << 63 << 63 << 3)",
            "bits(gfn, 1 << 63 << 63 << 63 << 63 << 3)",
            "257 bits",
        ),
        ("gfn == 0x1ffffffffffffffff", "0x1ffffffffffffffff", "64 bits at most"),
        ("gfn == 1.5", "1.5", "whole"),
        ("gfn == None", "None", "has(field)"),
        ("gfn is 1", "gfn is 1", "write =="),
        ("gfn == 1 if access.w else 2", "gfn == 1 if access.w else 2", "and, or"),
        ("gfn == (1", "(", "never closed"),
        ("gfn ==", "", ""),
        ("gfn = 1", "=", ""),
        ("gfn == 1 # x", "#", "no expression has"),
        ("gfn == 1; 2", ";", "no expression has"),
        ("gfn == 1 \\\n", "\\", "no expression has"),
        ("", "", "empty"),
        (" \n", "", "empty"),
        ("access == '" + "x" * 300 + "'", "'" + "x" * 300 + "'", "256 characters"),
        ("gfn == 1 or " * 500 + "False", "", "4096"),
        ("gfn == 1 or " * 300 + "False", "", "1000 at most"),
        ("(" * 30 + "gfn" + " + 1)" * 30 + " == 1", "", "24 levels"),
        ("not " * 1000 + "False", "", ""),
        ("-" * 4000 + "1 == 1", "", ""),
        ("(" * 400 + "1" + ")" * 400, "", ""),
        ("'ä\u2026' == access or gfm == 1", "'ä\u2026'", "is never"),
        ("(access == 'ä') or gfm == 1", "'ä'", "is never"),
        ("True == gfn", "gfn", "is compared with"),
    ],
)
def test_mistake(text: str, marked: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, "mem_access", names=NAMES)
    error = caught.value
    assert 0 <= error.offset <= len(text)
    if marked:
        assert text[error.offset : error.offset + error.length] == marked
    assert words in " ".join(error.lines())
    shown, mark = error.marked()
    assert mark.index("^") <= len(shown)
    assert error.exit_code == 8


def test_lists_of_names_of_msrs() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression("msr in msrs", "mov_to_msr", names=NAMES)
    assert caught.value.lines()[0] == "error: msrs: 'LSTRA' is no number"
    assert caught.value.nearest == "LSTAR"
    with pytest.raises(ExpressionError, match="compared with the string") as caught:
        compile_expression('msr == "LSTARR"', "mov_to_msr")
    assert caught.value.nearest == "LSTAR"


def test_the_mark_is_under_the_mistake_in_the_right_line() -> None:
    text = "access.w and\n  gfm == 1"
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, "mem_access")
    assert caught.value.marked() == ["  gfm == 1", "  ^~~"]


ESCAPES = """
__import__('os').system('id')
().__class__.__bases__[0].__subclasses__()
gfn.__class__
event.raw
guest.name
k1
evaluate(1)
note(1, 2)
__builtins__
[].append(1)
(lambda: 1)()
[x for x in (1,)]
(x for x in (1,))
{1: 2}
{x for x in hot}
f"{gfn.__class__}"
'%s' % gfn
'{0.__class__}'.format(gfn)
gfn.real
access.w.__init__
(gfn := 1)
*hot
hot[0]
hot[:]
await gfn
yield gfn
print(1)
open('/etc/passwd')
eval('1')
exec('1')
getattr(gfn, 'real')
globals()
bit(*hot)
bit(value=gfn, n=1)
bit.__self__
bit(gfn, 1).__class__
'a'.join(access)
access.w()
gfn()()
b'x'
1j
...
gfn if 1 else 2
gfn @ gfn
ｅval('1')
regs.__class__
mem_access.__dict__
flags.__class__
""".strip().splitlines()


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_else_can_be_reached(text: str) -> None:
    for wrapped in (text, f"({text}) == 1", f"{text} == 1 or True", f"gfn in ({text},)", f"bit({text}, 1)"):
        with pytest.raises(ExpressionError):
            compile_expression(wrapped, "mem_access", names=NAMES)
        with pytest.raises(ExpressionError):
            compile_filter(wrapped, names=NAMES)
