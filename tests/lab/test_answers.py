"""Answers that change what the guest does, told by the guest itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.guest.facts import TIMES, value
from tests.lab.scenario import Guest, attach, number, watched

if TYPE_CHECKING:
    from tests.lab.rig import Rig

#: A boot changes CR4 too: what is denied are the writes of the word "held".
_POLICY = f"""
from xenintro.response import Response

def decide(event, guest):
    if event.reason == "write_ctrlreg" and event.new_value ^ event.old_value == 0x80:
        return Response.deny()
    if event.reason == "mov_to_msr":
        return Response.deny()
    if event.reason == "cpuid":
        return Response.allow(event).with_registers({{"rbx": 0}})
    if event.reason == "guest_request":
        return Response.set_registers({{"rbx": {value("ASKED")}, "rax": 0}}).skipping(event).injecting(1)
    if event.reason == "mem_access" and "w" in event.access:
        return Response.emulate(write=False)
    if event.reason == "mem_access":
        return Response.emulate(read_data={value("FORGED").to_bytes(4, "little")!r})
"""

#: A real processor refuses a write with a fault at the instruction.
_FAULT = """
from xenintro.response import Response

def decide(event, guest):
    return Response.deny().with_registers({"rip": event.registers.rip}).injecting(13)
"""

_WORDS, _EVENTS = "held cpuid ask", "cr4,msr:lstar,cpuid,guest-request"
_PAGES = "forged", f",mem:r@{value('PAGE_READ') >> 12:#x},mem:w@{value('PAGE_WRITE') >> 12:#x}"

_ENFORCED = {
    "held_cr4": TIMES["N_HELD"], "held_msr": TIMES["N_HELD"],
    "cpuid": 0, "asked": TIMES["N_ASK"], "icebp": TIMES["N_ASK"],
}  # fmt: skip
_OBSERVED = {"held_cr4": 0, "held_msr": 0, "cpuid": TIMES["N_CPUID"], "asked": 0, "icebp": 0}


def _options(rig: Rig, policy: str, mode: str) -> str:
    rig.put("/root/answers.py", policy)
    return f"-p /root/answers.py --mode {mode} --deadline 10s"


def test_answers_have_their_effect(rig: Rig) -> None:
    """Writes denied, CPUID results and registers changed, a trap injected; on VMX pages forged."""
    words, events, expected = _WORDS, _EVENTS, _ENFORCED
    if rig.cpu == "vmx":
        words, events = f"{words} {_PAGES[0]}", events + _PAGES[1]
        expected = expected | {"forged": 1, "unwritten": 1}
    seen = watched(rig, words, events, options=_options(rig, _POLICY, "enforce"))
    assert seen.result.status == 0, seen.result.errors
    assert "policy" not in seen.result.errors
    assert {name: seen.tallies[name] for name in expected} == expected


@pytest.mark.cpus("svm")
def test_answers_that_are_only_observed_have_none(rig: Rig) -> None:
    seen = watched(rig, _WORDS, _EVENTS, options=_options(rig, _POLICY, "observe"))
    assert seen.result.status == 0, seen.result.errors
    assert {event.get("would") for event in seen.events} == {None, "deny", "set-registers"}
    assert {name: seen.tallies[name] for name in _OBSERVED} == _OBSERVED


@pytest.mark.cpus("svm")
def test_writes_are_allowed_again_after_detach(rig: Rig) -> None:
    writes = 2 * TIMES["N_HELD"]
    with Guest(rig, "held") as guest:
        job = attach(guest, "cr4:mask=0x260,msr:lstar", _options(rig, _POLICY, "enforce"), "-c 4")
        guest.unpause()
        ended = job.finish(None)
        tallies = guest.done()
    assert ended.status == 0, ended.errors
    held = tallies["held_cr4"] + tallies["held_msr"]
    assert 4 <= held < writes, "denied while watched, done afterwards"


@pytest.mark.cpus("svm")
def test_a_denied_write_can_fault(rig: Rig) -> None:
    """#GP at the WRMSR, as if the processor had refused it."""
    with Guest(rig, "held") as guest:
        job = attach(guest, "msr:lstar", _options(rig, _FAULT, "enforce"))
        guest.unpause()
        with pytest.raises(AssertionError, match="fault") as fault:
            guest.done()
        ended = job.finish(None)  # a guest that halts with interrupts off is shut down
    assert ended.status == 9, ended.errors
    assert "could not release" not in ended.errors
    (rip,) = re.findall(r'"rip":"(0x[0-9a-f]+)"', ended.output.splitlines()[0])
    vector, code, at, *_ = (int(word, 16) for word in re.findall(r" ([0-9a-f]{8})\b", str(fault.value)))
    assert (vector, code, at) == (13, 0, number(rip))
