"""Every kind of mistake in a file of rules: its line, its key, and the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenintro.abi import interface
from xenintro.errors import PolicyError, RulesError
from xenintro.policy.reader import load_rules, read_rules

FILE = Path("rules.toml")


def mistakes(text: str, abi: str | None = None) -> list[list[str]]:
    """The lines of each mistake."""
    try:
        read_rules(text.encode(), FILE, None if abi is None else interface(abi))
    except RulesError as error:
        return [mistake.lines() for mistake in error.mistakes]
    except PolicyError as error:
        return [error.lines()]
    return []


def rule(**keys: str) -> str:
    """A file with one rule on CPUID; values are TOML, None leaves a key out."""
    table = {"name": '"r"', "on": '"cpuid"'} | {key.removesuffix("_"): value for key, value in keys.items()}
    return "[[rule]]\n" + "".join(f"{key} = {value}\n" for key, value in table.items() if value)


CASES = [
    ("on_eror = 'deny'\n" + rule(), "rules.toml:1: on_eror: unknown key", "did you mean on_error?"),
    ("on_error = 'dney'\n" + rule(), "rules.toml:1: on_error: unknown answer dney", "did you mean deny?"),
    ("on_error = 1\n" + rule(), "rules.toml:1: on_error: not a string", ""),
    ("rule = 1", "rules.toml:1: rule: not a list", "[[rule]]"),
    ("rule = [1]", "rules.toml:1: rule: not a table", "[[rule]]"),
    ("", "rules.toml:1: no rules", "[[rule]]"),
    ("[lists]\nx = [1.5]\n" + rule(), "rules.toml:2: lists.x: a list has numbers and strings", ""),
    ("a = = 1", "rules.toml:1: not TOML", "invalid value"),
    ("a = 1\na = 2\n", "rules.toml:2: not TOML", "cannot overwrite"),
    ("[[rule]]\nname = '", "rules.toml:2: not TOML", ""),
    (rule(on=""), "rules.toml:1: rule: a rule without on", 'on = "mov_to_msr"'),
    (rule(name=""), "rules.toml:1: rule: a rule without name", "freeze-lstar"),
    (rule() + rule(), "rules.toml:5: name: r is the rule on line 2 too", ""),
    (rule(nmae="'x'"), "rules.toml:4: nmae: unknown key", "did you mean name?"),
    (rule(name="1"), "rules.toml:2: name: not a string", "freeze-lstar"),
    (rule(enabled="'no'"), "rules.toml:4: enabled: not true or false", ""),
    (rule(tags="'T1014'"), "rules.toml:4: tags: not a list", '["T1014"]'),
    (rule(tags="[1]"), "rules.toml:4: tags: tags are a list of strings", ""),
    (rule(on="'cpuidd'"), "rules.toml:3: on: unknown event cpuidd", "did you mean cpuid?"),
    (rule(level="'critcal'"), "rules.toml:4: level: unknown level critcal", "did you mean critical?"),
    (rule(when="'laef == 1'"), "rules.toml:4:9: when: unknown name laef", "did you mean leaf?"),
    (rule(when="'leaf == \"one\"'"), "rules.toml:4:17: when: ", ""),
    (rule(when="'leaf ='"), "rules.toml:4:", "not an expression"),
    (rule(when="'''\nleaf == 1\nor laef == 2'''"), "rules.toml:6: when: unknown name laef", "leaf?"),
    (rule(say="'{laef}'"), "rules.toml:4:9: say: unknown name laef", "did you mean leaf?"),
    (rule(answer="1"), "rules.toml:4: answer: not a string or a table", 'answer = "deny"'),
    (rule(answer="'alow'"), "rules.toml:4: answer: unknown answer alow", "did you mean allow?"),
    (rule(answer="{}"), "rules.toml:4: answer: no answer", 'answer = "deny"'),
    (rule(answer="{ skipp = true }"), "rules.toml:4: answer.skipp: unknown answer", "did you mean skip?"),
    (
        rule(answer="{ skip = false }"),
        "rules.toml:4: answer.skip: an instruction has 1 to 15 bytes",
        "skip = true",
    ),
    (rule(answer="{ deny = 1 }"), "rules.toml:4: answer.deny: deny takes no value but true", "deny = true"),
    (rule(answer="{ emulate-read = 'xy' }"), "answer.emulate-read: not bytes in hexadecimal", '"00 11"'),
    (rule(answer="{ emulate-read = '' }"), "answer.emulate-read: no bytes", ""),
    (rule(answer=f"{{ emulate-insn = '{'90' * 17}' }}"), "more than 16 bytes of instructions", ""),
    (rule(answer="{ switch-view = 65536 }"), "answer.switch-view: a view is a number of 16 bits", ""),
    (rule(answer="'set-registers'"), "answer.set-registers: registers are a table", "rax"),
    (rule(answer="{ set-registers = { rxx = 1 } }"), "set-registers.rxx: Xen takes no such register", "rax"),
    (rule(answer="{ set-registers = { cr3 = 1 } }"), "set-registers.cr3: Xen takes no such register", ""),
    (
        rule(answer="{ set-registers = { rax = -1 } }"),
        "set-registers.rax: not a number of 64 bits",
        "rax & ~0xff",
    ),
    (rule(answer="{ set-registers = { rax = 'rbxx' } }"), "set-registers.rax: unknown name rbxx", "rbx?"),
    (rule(answer="{ inject = {} }"), "answer.inject: a trap is a vector or a table with one", "vector = 6"),
    (rule(answer="{ inject = { vektor = 6 } }"), "answer.inject: a trap is a vector", ""),
    (rule(answer="{ inject = { vector = 256 } }"), "answer.inject.vector: not a number from 0 to 255", ""),
    (
        rule(answer="{ inject = { vector = 6, cr3 = 1 } }"),
        "answer.inject.cr3: unknown key",
        "did you mean cr2?",
    ),
    (rule(answer="{ deny = true, emulate = true }"), "answer: deny and emulate do not go together", ""),
    (
        rule(answer="'deny'"),
        "rules.toml:4: answer: deny is no answer to cpuid",
        "answers to it are allow, skip",
    ),
    (rule(answer="{ set-registers = { rax = 1 } }"), "set-registers is no answer to cpuid", "for ever"),
    (rule(on="'mem_access'", answer="'deny'"), "deny is no answer to mem_access", "emulate-nowrite"),
    (
        rule(on="'mov_to_msr'", answer="'emulate-nowrite'"),
        "emulate-nowrite is no answer to mov_to_msr",
        "deny",
    ),
    (
        rule(on="'write_ctrlreg'", when="\"register == 'xcr0' and new_value > 3\"", answer="'deny'"),
        "rules.toml:5: answer: deny is no answer to write_ctrlreg",
        "an XCR0 write cannot be denied",
    ),
    (
        rule(on="'mem_access'", answer="{ inject = 14, step-over = true }"),
        "is no answer to mem_access",
        "nothing else",
    ),
    (rule(test="1"), "rules.toml:4: test: not a list", ""),
    (rule(test="[1]"), "test: not a table", "[[rule.test]]"),
    (
        rule() + "[[rule.test]]\nexpect = 'none'\n",
        "rules.toml:4: test: a test has one of event, slot, capture",
        "",
    ),
    (rule() + "[[rule.test]]\nevent = {}\n", "rules.toml:4: test.expect: missing", 'expect = "deny"'),
    (
        rule() + "[[rule.test]]\nevent = {}\nexpect = 'denny'\n",
        "rules.toml:6: test.expect: unknown answer denny",
        "did you mean deny?",
    ),
    (
        rule() + "[[rule.test]]\ncapture = 'x'\nexpect = 'none'\n",
        "rules.toml:4: test: a capture needs seq",
        "seq = 0",
    ),
    (
        rule() + "[[rule.test]]\nevent = {}\nexpct = 'none'\n",
        "rules.toml:6: test.expct: unknown key",
        "did you mean expect?",
    ),
]


@pytest.mark.parametrize(("text", "what", "more"), CASES, ids=[case[1] for case in CASES])
def test_a_mistake(text: str, what: str, more: str) -> None:
    found = [" | ".join(lines) for lines in mistakes(text)]
    assert any(what in lines and more in lines for lines in found), found


def test_all_mistakes_are_found_in_the_order_of_the_file() -> None:
    text = rule(on="'cpuidd'", when="'x'") + rule(name="'b'", when="'laef == 1'", answer="'denny'")
    assert [lines[0].split(": ")[1] for lines in mistakes(text)] == [
        "rules.toml:3",
        "rules.toml:8:9",
        "rules.toml:9",
    ]
    with pytest.raises(RulesError) as caught:
        read_rules(text.encode(), FILE)
    assert caught.value.exit_code == 8
    assert caught.value.lines()[0] == "error: rules.toml:3: on: unknown event cpuidd"
    assert caught.value.lines()[-1] == "  and 2 more: xenintro policy check rules.toml"


def test_what_the_guests_interface_cannot() -> None:
    text = rule(on="'software_breakpoint'", answer="{ emulate-insn = '90' }")
    assert mistakes(text) == []
    (lines,) = mistakes(text, "vm_event-1")
    assert "vm_event-1 has no response flag set_emul_insn_data" in " ".join(lines)


def test_what_depends_on_the_register_is_left_to_the_session() -> None:
    assert mistakes(rule(on="'write_ctrlreg'", answer="'deny'")) == []
    assert mistakes(rule(on="'write_ctrlreg'", when="\"register in ('cr0', 'xcr0')\"", answer="'deny'")) == []


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"x" * (1 << 21), b"a = " + b"[" * 5000, b"a = 1" + b"0" * 9999]
)
def test_what_is_no_text(data: bytes) -> None:
    with pytest.raises(PolicyError, match=r"rules\.toml"):
        read_rules(data, FILE)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot read the policy"):
        load_rules(tmp_path / "none.toml")
    (tmp_path / "some.toml").write_text(rule())
    (tmp_path / "some.toml").chmod(0o666)
    with pytest.raises(PolicyError, match="not trusted"):
        load_rules(tmp_path / "some.toml")


WORDS = st.sampled_from(
    "name on when answer say level tags enabled test lists rule on_error deny allow skip cpuid mov_to_msr "
    "event slot capture seq times every expect set-registers inject vector rax leaf".split()
)
VALUES = st.recursive(
    st.integers() | st.booleans() | st.just(1.5) | WORDS | st.text("ab1 .'{}=\\\"\n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=6,
)


def toml(value: object) -> str:
    import json

    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


@settings(deadline=None)
@given(
    st.dictionaries(WORDS, VALUES, max_size=5),
    st.lists(st.dictionaries(WORDS, VALUES, max_size=8), max_size=3),
)
def test_nothing_but_a_policy_error(top: dict[str, object], tables: list[dict[str, object]]) -> None:
    text = "".join(f"{key} = {toml(value)}\n" for key, value in top.items() if key != "rule")
    for table in tables:
        text += "[[rule]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
    try:
        read_rules(text.encode(), FILE)
    except PolicyError as error:
        assert "rules.toml:" in error.lines()[0]
