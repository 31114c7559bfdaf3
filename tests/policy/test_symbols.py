"""Symbols of a kernel in rules: lists as nm and the kernel make them, and what is wrong with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.codec import decode
from xenintro.errors import ExpressionError, PolicyError, RulesError
from xenintro.guest import Guest
from xenintro.policy import chain, load
from xenintro.policy.language.expression import compile_expression, compile_filter
from xenintro.policy.language.scope import Names
from xenintro.policy.symbols import read_symbols

if TYPE_CHECKING:
    from pathlib import Path

V7 = interface("vm_event-7")
ENTRY = 0xFFFFFFFF81E00000
MAP = f"""\
{ENTRY:x} T entry_SYSCALL_64
ffffffff81e00080 T entry_SYSCALL_compat
ffffffff81000000 t local
ffffffff81000010 t local
ffffffffc0000000 t hook [rootkit]
0xffffffffc0000040 without_type
"""
RULES = """\
symbols = "guest.map"
[[rule]]
name = "keep-entry"
on = "mov_to_msr"
when = 'msr == LSTAR and new_value != symbol("entry_SYSCALL_64")'
answer = "deny"
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "guest.map").write_text(MAP)
    (tmp_path / "rules.toml").write_text(RULES)
    return tmp_path


def test_a_list(directory: Path) -> None:
    assert read_symbols(directory / "guest.map") == {
        "entry_SYSCALL_64": (ENTRY,),
        "entry_SYSCALL_compat": (ENTRY + 0x80,),
        "local": (0xFFFFFFFF81000000, 0xFFFFFFFF81000010),
        "hook": (0xFFFFFFFFC0000000,),
        "without_type": (0xFFFFFFFFC0000040,),
    }


@pytest.mark.parametrize(("value", "denied"), [(ENTRY, False), (ENTRY + 1, True)])
def test_a_rule(directory: Path, value: int, denied: bool) -> None:
    decide = chain([load(str(directory / "rules.toml"))], Guest(1, "-", None, 1))
    assert decide is not None
    slot = make_slot(V7, 5, payload={"msr": 0xC0000082, "new_value": value}, paused=True)
    assert (decide(decode(slot, V7)) is not None) == denied


@pytest.mark.parametrize(
    ("text", "value", "true"),
    [
        ('new_value in symbols("entry_*")', ENTRY + 0x80, True),
        ('new_value in symbols("entry_*", "hook")', 0xFFFFFFFFC0000000, True),
        ('new_value in symbols("local")', 0xFFFFFFFF81000010, True),
        ('new_value not in symbols("*")', ENTRY, False),
        ('new_value - symbol("entry_SYSCALL_64") < 0x1000', ENTRY + 0xFFF, True),
    ],
)
def test_expressions(directory: Path, text: str, value: int, true: bool) -> None:
    names = Names({}, read_symbols(directory / "guest.map"))
    expression = compile_expression(text, "mov_to_msr", names=names)
    slot = make_slot(V7, 5, payload={"msr": 0xC0000082, "new_value": value}, paused=True)
    assert bool(expression(decode(slot, V7), Guest(1, "-", None, 1))) == true


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('new_value == symbol("entry_SYSCAL_64")', "no symbol entry_SYSCAL_64"),
        ('new_value == symbol("local")', "2 symbols are called local"),
        ('new_value in symbols("nt_*")', "no symbol nt_*"),
        ("new_value == symbol(1)", "the name of a symbol is a string"),
        ("new_value == symbol()", "symbol is called with 0 values"),
    ],
)
def test_mistakes(directory: Path, text: str, words: str) -> None:
    names = Names({}, read_symbols(directory / "guest.map"))
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, "mov_to_msr", names=names)
    assert caught.value.what.startswith(words)


def test_a_filter_has_none() -> None:
    with pytest.raises(ExpressionError, match="no symbols are known here"):
        compile_filter('rip in symbols("x")')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no list\n", "guest.map:1: no symbol"),
        ("", "has no addresses"),
        ("0000000000000000 T entry\n", "has no addresses"),
    ],
)
def test_what_is_no_list(directory: Path, text: str, words: str) -> None:
    (directory / "guest.map").write_text(text)
    with pytest.raises(RulesError) as caught:
        load(str(directory / "rules.toml"))
    message = "\n".join(caught.value.lines())
    assert "rules.toml:1: symbols: " in message
    assert words in message


def test_a_list_that_is_not_there_or_anybodys(directory: Path) -> None:
    with pytest.raises(PolicyError):
        read_symbols(directory / "none.map")
    (directory / "guest.map").chmod(0o666)
    with pytest.raises(PolicyError, match="not trusted"):
        read_symbols(directory / "guest.map")
