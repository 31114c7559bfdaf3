"""Rules at work: the first that matches has the say, and one that cannot decide has none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xenintro.abi import interface
from xenintro.codec import decode
from xenintro.errors import PolicyError, RuleError
from xenintro.guest import Guest
from xenintro.policy import chain, load, load_all
from xenintro.policy.reader import read_rules
from xenintro.policy.requests import make_request
from xenintro.response import Response
from xenintro.service.policies import load_all as load_patterns

if TYPE_CHECKING:
    from typing import Any

    from xenintro.events import Event
    from xenintro.policy.rules import RulePolicy
    from xenintro.verdict import Verdict

GUEST = Guest(domid=1, uuid="-", name="tiny", nr_vcpus=1)
RFC3 = interface("mem_event-rfc3")
V7 = interface("vm_event-7")


def read(text: str) -> RulePolicy:
    return read_rules(text.encode(), Path("rules.toml"))


def judged(text: str, event: Event) -> Verdict | None:
    policy = read(text)
    policy.set_up(GUEST)
    decide = chain([policy], GUEST)
    assert decide is not None
    return decide(event)


def event(reason: str, layout: Any = V7, **values: Any) -> Event:
    return decode(make_request(layout, reason, values), layout)


CR3 = event("write_ctrlreg", register="cr3", old_value=1, new_value=2)


def rule(name: str, on: str = "write_ctrlreg", **keys: str) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f"[[rule]]\nname = '{name}'\non = '{on}'\n{lines}"


def test_the_first_that_matches_has_the_say() -> None:
    text = (
        rule("other", on="cpuid", answer="'allow'")
        + rule("off", enabled="false", answer="'deny'")
        + rule("narrow", when="'new_value == 3'", answer="'deny'")
        + rule("note", when="'new_value == 2'")
        + rule("rest", answer="'deny'")
    )
    verdict = judged(text, CR3)
    assert verdict is not None
    assert (verdict.response, verdict.rule.name) == (None, "note")
    verdict = judged(text, event("write_ctrlreg", register="cr3", new_value=4))
    assert verdict is not None
    assert (verdict.response, verdict.rule.name) == (Response.deny(), "rest")
    assert judged(text, event("guest_request")) is None


def test_what_it_says() -> None:
    text = rule("r", say="'{domain}: {register} {new_value}'", level="'notice'", tags="['a', 'b']")
    verdict = judged(text, CR3)
    assert verdict is not None
    assert verdict.rule.message(CR3) == "tiny: cr3 0x2"
    assert (verdict.rule.level, verdict.rule.tags) == ("notice", ("a", "b"))
    silent = judged(rule("r"), CR3)
    assert silent is not None
    assert silent.rule.message(CR3) is None


def test_registers_are_computed_of_the_event() -> None:
    answer = (
        "{ set-registers = { rax = 'rbx + 1', rcx = 'new_value | 0x8000000000000000', rdx = 5 }, skip = 3 }"
    )
    verdict = judged(
        rule("r", answer=answer), event("write_ctrlreg", rbx=(1 << 64) - 1, new_value=2, rip=0x10)
    )
    assert verdict is not None
    assert verdict.response is not None
    assert verdict.response.name == "set-registers+skip"
    assert verdict.response.registers == {"rax": 0, "rcx": 1 << 63 | 2, "rdx": 5, "rip": 0x13}


def test_one_that_cannot_decide_has_no_say() -> None:
    broken = rule("broken", answer="{ set-registers = { rax = 'sysenter_eip' }, skip = 3 }")
    absent = event("write_ctrlreg", interface("vm_event-1-4.6"), register="cr3")
    with pytest.raises(RuleError, match="broken: rax cannot be set: what it is computed of is absent"):
        judged(broken, absent)
    verdict = judged(broken + rule("next", answer="'deny'"), absent)
    assert verdict is not None
    assert verdict.rule.name == "next"
    assert [error.rule for error in verdict.errors] == ["broken"]


def test_a_file_can_deny_what_it_cannot_decide_about() -> None:
    broken = "on_error = 'deny'\n" + rule(
        "broken", answer="{ set-registers = { rax = 'sysenter_eip' }, skip = 3 }"
    )
    verdict = judged(broken, event("write_ctrlreg", interface("vm_event-1-4.6"), register="cr3"))
    assert verdict is not None
    assert (verdict.response, verdict.rule.name) == (Response.deny(), "broken")
    assert len(verdict.errors) == 1
    text = "on_error = 'deny'\n" + rule("r", "cpuid", answer="{ set-registers = { rax = 1 }, skip = true }")
    assert read(text).rules[0].on_error is None, "a CPUID cannot be denied"


@pytest.mark.parametrize(
    ("on", "answer", "denies"),
    [
        ("write_ctrlreg", "'deny'", True),
        ("mov_to_msr", "'skip'", True),
        ("mov_to_msr", "'allow'", False),
        ("cpuid", "'skip'", False),
    ],
)
def test_who_may_leave_a_write_undone(on: str, answer: str, denies: bool) -> None:
    assert read(rule("r", on, answer=answer)).rules[0].denies is denies


def test_what_was_seen_is_forgotten_with_the_guest() -> None:
    policy = read(rule("often", when="\"seen(2, '1s')\""))
    decide = chain([policy], GUEST)
    assert decide is not None
    policy.set_up(GUEST)
    assert decide(CR3) is None
    assert decide(CR3) is not None
    policy.set_up(GUEST)
    assert decide(CR3) is None


def test_names_are_unique_in_all_that_is_loaded(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    one, two, code = tmp_path / "one.toml", tmp_path / "two.toml", tmp_path / "same.py"
    one.write_text(rule("same"))
    two.write_text(rule("other"))
    code.write_text("def decide(event, guest): pass")
    assert [policy.name for policy in load_all([str(one), str(two)])] == ["one", "two"]
    for other in (one, code):
        with pytest.raises(PolicyError, match=r"same is a rule of .*one\.toml too"):
            load_all([str(one), str(other)])


def test_a_service_names_them_as_the_command_line_does(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "rules.d"
    folder.mkdir(mode=0o755)
    (folder / "b.toml").write_text(rule("b"))
    (folder / "a.toml").write_text(rule("a"))
    loaded = load_patterns(["rules.d/*.toml", "lib:known-cr3", "none.d/*.toml"], tmp_path, V7)
    assert [policy.name for policy in loaded.policies] == ["a", "b", "known-cr3"]
    with pytest.raises(PolicyError, match="does not exist"):
        load_patterns(["rules.d/c.toml"], tmp_path, V7)
    with pytest.raises(PolicyError, match="a mistake in no_such_module"):
        load_patterns(["no_such_module:policy"], tmp_path, V7)


def test_a_library_by_name() -> None:
    assert load("lib:known-cr3").rules[0].name == "unknown-address-space"
    with pytest.raises(PolicyError) as caught:
        load("lib:known_cr3")
    assert caught.value.hint == "did you mean lib:known-cr3?"
