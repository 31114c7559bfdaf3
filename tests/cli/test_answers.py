"""Answers that need more than their flag, live: steps, pages opened, traps injected, interrupts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cli.simulated import simulated_host

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.simulated import Host

#: Three steps behind every guest request.
STEPS = """
from xenintro.response import Response
left = 0
def decide(event, guest):
    global left
    if event.reason == "guest_request":
        left = 3
    elif event.reason != "singlestep":
        return None
    else:
        left -= 1
    return Response.single_step() if left else Response.plain()
"""

STEP_OVER = """
from xenintro.response import Response
def decide(event, guest):
    if event.reason == "mem_access":
        return Response.step_over()
"""

INJECT = """
from xenintro.response import Response
def decide(event, guest):
    return Response.inject(13)
"""

NEXT_INTERRUPT = """
from xenintro.response import Response
def decide(event, guest):
    if event.reason == "cpuid":
        return Response.next_interrupt(event)
"""


def reasons(tmp_path: Path, host: Host, policy: str, events: str, count: int = 40) -> list[str]:
    """Reasons and answers of a session that was enforced, in order; the guest runs on after it."""
    file = tmp_path / "policy.py"
    file.write_text(policy)
    options = [
        "-p",
        str(file),
        "--mode",
        "enforce",
        "--format",
        "jsonl",
        "-c",
        str(count),
        "--deadline",
        "10s",
    ]
    ended = host.run("watch", "--domid", "1", "-e", events, *options)
    assert ended.code == 0, ended.stderr
    assert "policy failed" not in ended.stderr
    host.assert_untouched()
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return [f"{line['reason']} {line['answer']}" for line in lines]


def test_as_many_steps_as_a_policy_asks_for(tmp_path: Path) -> None:
    with simulated_host(vcpus=1) as host:
        got = reasons(tmp_path, host, STEPS, "singlestep:asked,guest-request")
    steps = ["singlestep single-step"] * 2 + ["singlestep plain"]
    assert got[:12] == ["guest_request single-step", *steps] * 3


def test_pages_are_stepped_over_where_a_policy_says_so(tmp_path: Path) -> None:
    with simulated_host(vcpus=2) as host:
        got = reasons(tmp_path, host, STEP_OVER, "mem:w@0x400-0x23ff")
        assert set(got) == {"mem_access step-over"}


def test_a_trap_is_injected_once_for_each_answer(tmp_path: Path) -> None:
    with simulated_host(vcpus=1) as host:
        got = reasons(tmp_path, host, INJECT, "guest-request")
        assert set(got) == {"guest_request inject"}
        (vcpu,) = host.simulation.control("state")["vcpus"]
        answered = host.simulation.report()["events"]
        # Requests that were drained at the end were allowed.
        assert len(got) <= vcpu["traps"]["13"] <= answered


def test_interrupts_come_where_they_were_asked_for(tmp_path: Path) -> None:
    with simulated_host(vcpus=1) as host:
        got = reasons(tmp_path, host, NEXT_INTERRUPT, "interrupt:asked,cpuid", 30)
        assert "interrupt allow" in got
        assert "cpuid next-interrupt" in got
