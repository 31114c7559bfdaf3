"""replay_equals_live on a simulated Xen: whatever a policy and the deadline did there, it verifies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.runner import Outcome, xenintro
from tests.cli.simulated import simulated_host

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = (
    "mem:w@0x400-0xbff:step,mem:x@0xc00-0xdff,cr0,cr3,cr4,msr:lstar,cpuid,int3,debug,desc,guest-request"
)

#: Answers of every kind, by how often it was asked and by the time it is told; some of them come too late.
POLICY = """
import time
from xenintro.response import Response

asked = 0

def decide(event, guest):
    global asked
    asked += 1
    if asked % 90 == 0:
        time.sleep(0.1)
    if asked % 97 == 0:
        raise ZeroDivisionError
    if event.reason == "cpuid" and asked % 3 == 0:
        return Response.set_registers({"rax": asked, "rip": event.registers.rip + event.insn_length})
    if event.reason == "mem_access" and asked % 3 == 0:
        return Response.step_over() if asked % 5 else Response.emulate(write=False)
    if guest.now_ns % 3 == 0:
        return Response.next_interrupt(event)
"""

CPUID = """
from xenintro.response import Response

def decide(event, guest):
    if event.reason == "cpuid" and event.leaf == 0:
        return Response.set_registers({"rax": VALUE, "rip": event.registers.rip + event.insn_length})
"""


def record(directory: Path, events: str, count: int, *options: str) -> Path:
    capture = directory / "capture.pcapng"
    with simulated_host(vcpus=4, scenario="storm") as host:
        outcome = host.run(
            *("watch", "-d", "1", "-e", events, "-c", str(count), "--deadline", "50ms", "-q"),
            *("--format", "jsonl", "-w", str(capture), *options),
        )
        assert outcome.code == 0, outcome.stderr
    return capture


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "mode"),
    [
        (EVERYTHING, "observe"),
        (f"{EVERYTHING},interrupt", "enforce"),
        ("mem:rw@0x400-0xbff:step,singlestep,cr3,cpuid,int3", "enforce"),
    ],
    ids=["observed", "enforced", "stepping"],
)
def test_replay_equals_live(tmp_path: Path, events: str, mode: str) -> None:
    policy = str(written(tmp_path / "policy.py", POLICY))
    capture = str(record(tmp_path, events, 400, "-p", policy, "--mode", mode))
    shown = xenintro("watch", "-r", capture, "--format", "jsonl")
    assert any(line.get("late") for line in shown.records), "nothing came too late"
    verified = xenintro("replay", capture, "-p", policy, "--verify")
    assert verified.code == 0, verified.stderr
    assert "answers are identical to the recorded ones" in verified.stderr
    assert xenintro("replay", capture, "-p", policy, "--format", "jsonl").stdout == shown.stdout


@pytest.fixture(scope="module")
def cpuid_capture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A capture in which leaf 0 of CPUID was changed, and the policy that did it."""
    directory = tmp_path_factory.mktemp("cpuid")
    policy = written(directory / "cpuid.py", CPUID.replace("VALUE", "7"))
    return record(directory, "cpuid,cr3", 60, "-p", str(policy), "--mode", "enforce"), policy


def verified(capture: Path, *options: str) -> Outcome:
    return xenintro("replay", str(capture), "--verify", "--format", "jsonl", *options)


def changed_answers(capture: Path) -> list[int]:
    """Which requests of the capture the policy answered."""
    lines = xenintro("watch", "-r", str(capture), "--format", "jsonl").records
    return [at for at, line in enumerate(lines) if line["answer"] == "set-registers"]


def test_a_changed_rule_shows_exactly_the_changed_answers(
    cpuid_capture: tuple[Path, Path], tmp_path: Path
) -> None:
    capture, policy = cpuid_capture
    assert verified(capture, "-p", str(policy)).stdout == ""
    changed = verified(capture, "-p", str(written(tmp_path / "cpuid.py", CPUID.replace("VALUE", "9"))))
    numbers = changed_answers(capture)
    assert changed.code == 8
    assert len(changed.records) == len(numbers) > 5
    assert {(line["reason"], line["cpuid"]["leaf"]) for line in changed.records} == {("cpuid", 0)}
    first = changed.stderr.splitlines()
    at = next(at for at, line in enumerate(first) if "answers differ; the first" in line)
    assert first[at].endswith(f"the first, request {numbers[0]}:")
    assert first[at + 2].split() == ["regs.rax", "recorded", "0x7,", "now", "0x9"]
    assert changed.error[0].startswith(f"error: {len(numbers)} of ")
    assert "not with what the files hold now" in changed.stderr


def test_without_the_policy_it_is_said_why_answers_differ(cpuid_capture: tuple[Path, Path]) -> None:
    capture, policy = cpuid_capture
    bare = verified(capture)
    assert bare.code == 8
    assert f"note: recorded with {policy} in enforce mode; without -p its answers cannot" in bare.stderr
    assert len(bare.records) == len(changed_answers(capture))
    assert "answer                       recorded set-registers, now allow" in bare.stderr


def test_an_observed_policy_is_compared_by_what_it_would_do(
    cpuid_capture: tuple[Path, Path], tmp_path: Path
) -> None:
    _, policy = cpuid_capture
    capture = record(tmp_path, "cpuid,cr3", 40, "-p", str(policy))
    assert verified(capture).code == 0, "what was sent is what is sent without it"
    assert verified(capture, "-p", str(policy)).code == 0
    lenient = verified(capture, "-p", str(written(tmp_path / "none.py", "def decide(event, guest): pass")))
    assert lenient.code == 8
    assert "would                        recorded set-registers, now nothing" in lenient.stderr
    assert verified(capture, "-p", str(policy), "--mode", "enforce").code == 8


def test_a_denial_is_possible_where_it_would_have_been_armed(tmp_path: Path) -> None:
    policy = written(
        tmp_path / "deny.py",
        "from xenintro.response import Response\n\n"
        "def decide(event, guest):\n"
        "    return Response.deny() if event.reason == 'mov_to_msr' else None\n",
    )
    capture = record(tmp_path, "msr:lstar,cr3", 30, "-p", str(policy))
    assert verified(capture, "-p", str(policy)).code == 0
    enforced = verified(capture, "-p", str(policy), "--mode", "enforce")
    assert enforced.code == 8
    assert {(line["reason"], line["answer"]) for line in enforced.records} == {("mov_to_msr", "deny")}
    assert "recorded vcpu_paused, now vcpu_paused deny" in enforced.stderr


def test_a_damaged_capture_is_read_as_far_as_it_goes(
    cpuid_capture: tuple[Path, Path], tmp_path: Path
) -> None:
    capture, policy = cpuid_capture
    data = capture.read_bytes()
    torn = tmp_path / "torn.pcapng"
    torn.write_bytes(data[: len(data) * 2 // 3])
    replayed = verified(torn, "-p", str(policy))
    for outcome in (replayed, xenintro("watch", "-r", str(torn))):
        assert outcome.code == 7
        assert outcome.error[0] == f"error: {torn} is damaged"
    assert "answers are identical" in replayed.stderr


def test_a_capture_comes_through_a_pipe_and_is_selected(cpuid_capture: tuple[Path, Path]) -> None:
    capture, _ = cpuid_capture
    data = capture.read_bytes()
    whole = xenintro("watch", "-r", "-", "--format", "jsonl", stdin=data)
    assert whole.code == 0
    assert len(whole.records) >= 60
    assert "tiny (domid 1)" in whole.stderr
    selected = xenintro("watch", "-r", "-", "-e", "cr3", "-c", "5", "--format", "jsonl", stdin=data)
    assert [line["reason"] for line in selected.records] == ["write_ctrlreg"] * 5
    assert {line["seq"] for line in selected.records} == set(range(5))
    assert selected.records[0]["pause_ns"] > 0
    short = xenintro("watch", "-r", str(capture), "-t", "1ns", "--format", "jsonl")
    assert (short.code, short.records) == (0, [])


def test_what_is_for_a_live_domain_is_refused(cpuid_capture: tuple[Path, Path]) -> None:
    refused = xenintro("watch", "-r", str(cpuid_capture[0]), "-p", "policy.py")
    assert refused.code == 2
    assert refused.error[0] == "error: --policy is for a live domain, and -r reads a capture"
    assert "xenintro replay" in refused.error[2]


@pytest.mark.slow
def test_files_of_a_rotation_are_replayed_alone_and_joined(tmp_path: Path) -> None:
    with simulated_host(vcpus=4, scenario="storm") as host:
        recorded = host.run(
            *("record", "-d", "1", "-e", "mem:rw@0x400-0xbff:step,cr3", "-c", "200", "-q"),
            *("-w", str(tmp_path / "ring.pcapng"), "--rotate", "100kB"),
        )
        assert recorded.code == 0, recorded.stderr
    files = sorted(tmp_path.glob("ring-*.pcapng"))
    assert len(files) > 1
    joined = tmp_path / "joined.pcapng"
    joined.write_bytes(b"".join(file.read_bytes() for file in files))
    for file in (files[1], files[-1], joined):
        outcome = verified(file)
        assert outcome.code == 0, outcome.stderr
    assert len(xenintro("watch", "-r", str(joined), "--format", "jsonl").records) >= 200
