"""``xenintro policy``: what people see of their rules before these decide."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.capture.making import answered, write_capture
from tests.cli.runner import Outcome, xenintro
from tests.cli.simulated import simulated_host
from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.capture import CaptureInfo, CaptureWriter
from xenintro.policy.spec import library

if TYPE_CHECKING:
    from pathlib import Path

V7 = interface("vm_event-7")
RULES = """
[lists]
syscall_msrs = ["LSTAR", "CSTAR"]

[[rule]]
name   = "freeze"
desc   = "entry points"
on     = "mov_to_msr"
when   = "msr in syscall_msrs and old_value != 0 and new_value != old_value"
answer = "deny"
say    = "{register} becomes {new_value}"
level  = "critical"

[[rule.test]]
event  = { msr = "lstar", old_value = 1, new_value = 2 }
expect = "deny"

[[rule]]
name = "note"
on   = "mov_to_msr"
say  = "{register}"
"""
LSTAR = make_slot(
    V7, 5, payload={"msr": 0xC0000082, "old_value": 1, "new_value": 2}, registers={"rip": 0x1000}, paused=True
)

STAR = make_slot(V7, 5, payload={"msr": 0xC0000081}, paused=True)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def policy(*args: object) -> Outcome:
    return xenintro("policy", *map(str, args))


def test_help_lists_the_verbs() -> None:
    outcome = policy("--help")
    assert outcome.code == 0
    for verb in ("check", "test", "explain", "diff", "fields", "list"):
        assert f"\n  {verb}" in outcome.stdout
        assert policy(verb, "--help").code == 0


def test_check(rules: Path) -> None:
    outcome = policy("check", rules, "lib:hide-hypervisor")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout == f"ok  {rules}: 2 rules\nok  lib:hide-hypervisor: 2 rules\n"


def test_check_shows_every_mistake_of_every_file(rules: Path) -> None:
    rules.write_text(RULES.replace("old_value != 0", "old_valeu != 0").replace('"deny"', '"emulate"', 1))
    broken = rules.with_name("broken.toml")
    broken.write_text("[[rule]\n")
    python = rules.with_name("broken.py")
    python.write_text("x =\n")
    outcome = policy("check", rules, broken, python, rules.with_name("none.toml"))
    assert (outcome.code, outcome.stdout) == (8, "")
    lines = outcome.stderr.splitlines()
    assert f"error: {rules}:9:35: when: unknown name old_valeu" in lines
    assert "  did you mean old_value?" in lines
    assert f"error: {rules}:10: answer: emulate is no answer to mov_to_msr" in lines
    assert f"error: {broken}:1: not TOML" in lines
    assert f"error: a mistake in {python}, line 1" in lines
    assert lines[-1] == "5 mistakes"


def test_check_finds_rules_that_are_never_asked(rules: Path) -> None:
    first, second = RULES.split("\n[[rule]]\n")[1:]
    head = RULES.partition("[[rule]]")[0]
    never = '[[rule]]\nname = "no"\non = "cpuid"\nwhen = "1 > 2"\n'
    rules.write_text(f"{head}[[rule]]\n{second}\n[[rule]]\n{first}\n{never}")
    outcome = policy("check", rules)
    assert outcome.code == 8
    assert "freeze is never asked" in outcome.stderr
    assert "note on line 6 answers every mov_to_msr before it" in outcome.stderr
    assert "no never matches" in outcome.stderr


def test_check_for_an_interface(rules: Path) -> None:
    rules.write_text('[[rule]]\nname = "r"\non = "mov_to_msr"\nanswer = "next-interrupt"\n')
    assert policy("check", rules).code == 0
    outcome = policy("check", rules, "--abi", "vm_event-1")
    assert outcome.code == 8
    assert "get_next_interrupt" in outcome.stderr


def test_tests_pass_or_show_what_differs(rules: Path) -> None:
    outcome = policy("test", rules)
    assert outcome.code == 0
    assert outcome.stdout == "ok    freeze  rules.toml:14  deny\n1 passed, 0 failed\n"
    rules.write_text(
        RULES
        + '[[rule.test]]\nevent = { msr = "cstar", old_value = 1 }\nexpect = "none"\nrule = "other"\n'
        + '[[rule.test]]\nevent = { msr = "star" }\nexpect = "allow"\nsay = "lstar"\n'
        + '[[rule.test]]\nevent = { mrs = "star" }\nexpect = "allow"\n'
        + '[[rule.test]]\nslot = "none.bin"\nexpect = "allow"\n'
    )
    outcome = policy("test", rules)
    assert outcome.code == 8
    lines = outcome.stdout.splitlines()
    assert lines[1:6] == [
        "FAIL  note  rules.toml:22",
        "      answer    expected  none",
        "                got       deny",
        "      rule      expected  -",
        "                got       freeze",
    ]
    assert "      message   expected  lstar" in lines
    assert "                got       error: mov_to_msr has no field mrs" in lines
    assert any("cannot read" in line and "none.bin" in line for line in lines)
    assert lines[-1] == "1 passed, 4 failed"


def test_tests_on_slots(rules: Path) -> None:
    rules.with_name("lstar.bin").write_bytes(LSTAR)
    rules.write_text(RULES + '[[rule.test]]\nslot = "lstar.bin"\nexpect = "deny"\nrule = "freeze"\n')
    assert policy("test", rules).stdout.endswith("2 passed, 0 failed\n")


def test_explain_a_slot(rules: Path) -> None:
    slot = rules.with_name("lstar.bin")
    slot.write_bytes(LSTAR)
    outcome = policy("explain", rules, slot)
    assert outcome.code == 0
    lines = [line.rstrip() for line in outcome.stdout.splitlines()]
    assert lines[0].split()[1:6] == ["v0", "mov_to_msr", "lstar", "0x1", "→"]
    assert "freeze  (line 6)  matches" in lines
    assert any(line.split() == ["true", "old_value", "!=", "0"] for line in lines)
    assert "note  (line 19)  would match, but is not asked" in lines
    assert "answer   deny" in lines
    assert "message  lstar becomes 0x2" in lines
    assert any(line.startswith("  0000  07 00 00 00 41 00 00 00 05") for line in lines)


def test_explain_says_what_was_false(rules: Path) -> None:
    slot = rules.with_name("star.bin")
    slot.write_bytes(STAR)
    lines = [line.split() for line in policy("explain", rules, slot).stdout.splitlines()]
    assert ["freeze", "(line", "6)", "does", "not", "match"] in lines
    assert ["false", "msr", "in", "syscall_msrs"] in lines
    assert ["not", "asked", "old_value", "!=", "0"] in lines
    assert ["answer", "allow"] in lines


def test_explain_a_line_of_watch(rules: Path) -> None:
    with simulated_host() as host:
        line = host.run("watch", "-d", "1", "-e", "msr:lstar", "--format", "jsonl", "-c", "1").stdout
    for args, stdin in (((str(rules), "-"), line.encode()),):
        outcome = xenintro("policy", "explain", *args, stdin=stdin)
        assert outcome.code == 0, outcome.stderr
        assert "answer   deny" in outcome.stdout.splitlines()
        assert json.loads(line)["mov_to_msr"]["new_value"] in outcome.stdout


@pytest.mark.parametrize("data", [b"{", b"{}", b"[]", b"\0" * 17, b'{"reason":"cpuid","cpuid":{"leaf":"x"}}'])
def test_explain_what_is_no_event(rules: Path, data: bytes) -> None:
    place = rules.with_name("event")
    place.write_bytes(data)
    outcome = policy("explain", rules, place)
    assert outcome.code in (2, 7)
    assert len(outcome.error) >= 1


def captured(path: Path, *slots: bytes) -> Path:
    """A capture with a request a millisecond."""
    batch = [answered(raw, V7, taken_ns=10**18 + at * 10**6) for at, raw in enumerate(slots)]
    return write_capture(path, [batch], V7)


def test_explain_a_request_of_a_capture(rules: Path) -> None:
    rules.write_text(
        '[[rule]]\nname = "third"\non = "mov_to_msr"\nwhen = "seen(3, \'1s\')"\nanswer = "deny"\n'
    )
    capture = captured(rules.with_name("some.pcapng"), LSTAR, LSTAR, LSTAR, LSTAR)
    for seq, answer in ((0, "allow"), (1, "allow"), (2, "deny"), (3, "deny")):
        assert f"answer   {answer}\n" in policy("explain", rules, capture, "--seq", seq).stdout
    outcome = policy("explain", rules, capture, "--seq", 4)
    assert outcome.code == 2
    assert "has no request 4" in outcome.stderr


def test_explain_has_not_seen_what_was_not_asked(rules: Path) -> None:
    rules.write_text(
        '[[rule]]\nname = "second"\non = "mov_to_msr"\nwhen = "seen(2, \'1s\')"\nanswer = "deny"\n'
        '[[rule.test]]\ncapture = "some.pcapng"\nseq = 1\nexpect = "none"\n'
        '[[rule.test]]\ncapture = "some.pcapng"\nseq = 2\nexpect = "deny"\n'
    )
    batch = [answered(LSTAR, taken_ns=10**18 + at * 10**6) for at in range(3)]
    batch[0] = batch[0]._replace(asked=False)
    capture = write_capture(rules.with_name("some.pcapng"), [batch])
    for seq, answer in ((0, "allow"), (1, "allow"), (2, "deny")):
        assert f"answer   {answer}\n" in policy("explain", rules, capture, "--seq", seq).stdout
    assert "2 passed, 0 failed" in policy("test", rules).stdout


def test_a_test_on_a_capture(rules: Path) -> None:
    captured(rules.with_name("some.pcapng"), STAR, LSTAR)
    rules.write_text(
        RULES
        + '[[rule.test]]\ncapture = "some.pcapng"\nseq = 0\nexpect = "allow"\nsay = "star"\n'
        + '[[rule.test]]\ncapture = "some.pcapng"\nseq = 1\nexpect = "deny"\nrule = "freeze"\n'
        + '[[rule.test]]\ncapture = "some.pcapng"\nseq = 2\nexpect = "deny"\nrule = "freeze"\n'
    )
    outcome = policy("test", rules)
    assert outcome.code == 8
    assert "3 passed, 1 failed" in outcome.stdout
    assert "some.pcapng has no request 2" in outcome.stdout


def test_diff(rules: Path) -> None:
    capture = captured(rules.with_name("some.pcapng"), *[LSTAR] * 5, STAR)
    new = rules.with_name("new.toml")
    new.write_text(RULES.replace('"deny"\nsay', '"allow"\nsay'))
    outcome = policy("diff", rules, new, "-r", capture)
    assert outcome.code == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines[:3] == ["5 of 6 requests are answered otherwise", "", "5 x  deny (freeze) → allow (freeze)"]
    assert [line.split()[:4] for line in lines[3:]] == [
        [str(at), time, "v0", "mov_to_msr"] for at, time in enumerate(line.split()[1] for line in lines[3:])
    ]
    assert len(lines) == 6
    assert policy("diff", rules, rules, "-r", capture).stdout == "0 of 6 requests are answered otherwise\n"


def test_diff_compares_what_is_sent_and_not_what_it_is_called(rules: Path) -> None:
    capture = captured(rules.with_name("some.pcapng"), LSTAR)
    new = rules.with_name("new.toml")
    new.write_text(RULES.replace('"freeze"', '"ice"'))
    assert policy("diff", rules, new, "-r", capture).stdout == "0 of 1 requests are answered otherwise\n"
    capture = captured(
        rules.with_name("more.pcapng"), make_slot(V7, 10, payload={"insn_length": 2}, paused=True)
    )
    for file, value in ((rules, 1), (new, 2)):
        file.write_text(
            '[[rule]]\nname = "set"\non = "cpuid"\n'
            f"answer = {{ set-registers = {{ rax = {value} }}, skip = true }}\n"
        )
    lines = policy("diff", rules, new, "-r", capture).stdout.splitlines()
    assert lines[2] == "1 x  set-registers+skip (set) → set-registers+skip (set)"
    assert lines[4].split() == ["regs.rax", "0x1", "→", "0x2"]


def test_diff_asks_where_a_session_asks(rules: Path) -> None:
    """Of requests that came along, or came when the session was about to end, policies are not told."""
    first, *others = (answered(LSTAR, taken_ns=at * 1000) for at in range(4))
    unasked = [one._replace(asked=False) for one in others]
    capture = write_capture(rules.with_name("some.pcapng"), [[first], unasked])
    new = rules.with_name("new.toml")
    new.write_text(RULES.replace('"deny"\nsay', '"allow"\nsay'))
    assert policy("diff", rules, new, "-r", capture).stdout.startswith("1 of 4 requests")


def test_diff_shows_an_error_behind_a_deadline_that_was_missed(rules: Path) -> None:
    late = answered(LSTAR, taken_ns=1000, late=True)._replace(asked=False)
    capture = write_capture(rules.with_name("some.pcapng"), [[late, answered(LSTAR, taken_ns=2000)]])
    python = rules.with_name("new.py")
    python.write_text("def decide(event, guest):\n    raise ValueError\n")
    nobody = rules.with_name("nobody.py")
    nobody.write_text("def decide(event, guest):\n    return None\n")
    text = policy("diff", nobody, python, "-r", capture).stdout
    assert "1 x  allow → error: new: ValueError" in text


def test_diff_blames_an_error_on_no_later_event(rules: Path) -> None:
    """The second one came along: it was not asked for."""
    path = rules.with_name("some.pcapng")
    with CaptureWriter(path, CaptureInfo(abi=V7.id, events="msr:lstar")) as writer:
        writer.write([answered(LSTAR, taken_ns=1000), answered(STAR, taken_ns=2000)])
    python = rules.with_name("new.py")
    python.write_text("def decide(event, guest):\n    raise ValueError\n")
    nobody = rules.with_name("nobody.py")
    nobody.write_text("def decide(event, guest):\n    return None\n")
    assert policy("diff", nobody, python, "-r", path).stdout.startswith("1 of 2 requests")


def test_diff_with_a_policy_in_python(rules: Path) -> None:
    capture = captured(rules.with_name("some.pcapng"), LSTAR, STAR)
    python = rules.with_name("new.py")
    python.write_text(
        "from xenintro.response import Response\n"
        "def decide(event, guest):\n"
        "    assert event.msr != 0xC0000081\n"
        "    return Response.emulate()\n"
    )
    text = policy("diff", rules, python, "-r", capture).stdout
    assert "deny (freeze) → error: emulate is no answer to mov_to_msr" in text
    assert "allow (note) → error: new: AssertionError" in text


def test_diff_of_a_torn_capture(rules: Path) -> None:
    capture = captured(rules.with_name("some.pcapng"), LSTAR, LSTAR)
    capture.write_bytes(capture.read_bytes()[:-300])
    outcome = policy("diff", rules, rules, "-r", capture)
    assert outcome.code == 7
    assert "requests are answered otherwise" in outcome.stdout


def test_list(rules: Path) -> None:
    outcome = policy("list", rules)
    lines = outcome.stdout.splitlines()
    assert lines[1].split() == ["rule", "on", "answer", "level", "desc"]
    assert lines[2].split() == ["freeze", "mov_to_msr", "deny", "critical", "entry", "points"]
    records = policy("list", rules, "--format", "jsonl").records
    assert [record["rule"] for record in records] == ["freeze", "note"]
    assert records[0]["when"].startswith("msr in syscall_msrs")


def test_list_without_a_file_shows_the_library() -> None:
    outcome = policy("list")
    assert outcome.code == 0
    for path in library():
        assert f"lib:{path.stem}  {path}" in outcome.stdout


def test_a_library_that_does_not_exist() -> None:
    outcome = policy("check", "lib:hide-hypervisr")
    assert outcome.code == 8
    assert "did you mean lib:hide-hypervisor?" in outcome.stderr
