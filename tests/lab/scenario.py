"""Guests under watch: start one with its words, watch it, let it run, collect what was seen."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from tests.lab.guest.facts import TALLIES

if TYPE_CHECKING:
    from types import TracebackType

    from tests.lab.rig import Job, Result, Rig


class Guest:
    """A guest of ours, paused until `unpause`, destroyed at the end."""

    def __init__(self, rig: Rig, words: str, vcpus: int = 1) -> None:
        self.rig, self.vcpus = rig, vcpus
        self.mark = rig.console.mark()
        self.domid = int(rig.run(f"lab -c {vcpus} beat {words}").output.split()[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rig.run("xl destroy lab", check=False)

    def unpause(self) -> None:
        """Let it run."""
        self.rig.run("xl unpause lab")

    def slow_down(self) -> None:
        """Leave most of the machine's one CPU to dom0, where Python is several times as fast then."""
        self.rig.run("xl sched-credit -d lab -c 30")

    def done(self, timeout: float = 120) -> dict[str, int]:
        """Wait until it has done all of its words; gives what it counted itself."""
        said = self._wait(r"lab: (done|fault)((?: [0-9a-f]{8})+)\n", timeout)
        if said[1] == "fault":
            raise AssertionError(f"the guest took a fault it did not expect: {said[0]}")
        return dict(zip(TALLIES, (int(word, 16) for word in said[2].split()), strict=True))

    def progress(self, timeout: float = 120) -> tuple[int, ...]:
        """How often each vCPU has gone through the words, from the next line that says so."""
        self.mark = self.rig.console.mark()
        beat = self._wait(r"lab: beat [0-9a-f]{8}((?: [0-9a-f]{8})+)\n", timeout)
        return tuple(int(word, 16) for word in beat[1].split())[: self.vcpus]

    def runs(self, timeout: float = 60) -> bool:
        """Whether every vCPU goes on through its words; raises if the guest says nothing at all."""
        before, deadline = self.progress(), time.monotonic() + timeout
        while time.monotonic() < deadline:
            if all(now > then for now, then in zip(self.progress(), before, strict=True)):
                return True
        return False

    def _wait(self, pattern: str, timeout: float) -> re.Match[str]:
        prefix = rf"\(d{self.domid}\) "
        return self.rig.console.wait(prefix + pattern, since=self.mark, timeout=timeout)


@dataclass(frozen=True)
class Seen:
    """What one watched run gave."""

    result: Result
    tallies: dict[str, int]

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The JSON Lines, in order."""
        return [json.loads(line) for line in self.result.output.splitlines()]

    def of(self, vcpu: int) -> list[dict[str, Any]]:
        """The events of one vCPU."""
        return [event for event in self.events if event["vcpu_id"] == vcpu]


def attach(guest: Guest, events: str, *options: str) -> Job:
    """Start `xenintro watch` and return once it is attached."""
    command = f"xenintro watch --domid {guest.domid} -e {events} --format jsonl"
    job = guest.rig.start(" ".join((command, *options)))
    job.wait("grep -q ^watching err")
    return job


def watched(rig: Rig, words: str, events: str, *, vcpus: int = 1, options: str = "") -> Seen:
    """One whole run: the guest does its words under watch, then Ctrl-C."""
    with Guest(rig, words, vcpus) as guest:
        job = attach(guest, events, options)
        guest.unpause()
        tallies = guest.done()
        result = job.finish("INT")
        guest.progress()
    return Seen(result, tallies)


def number(value: object) -> object:
    """A JSON value as Python compares it: 64-bit values travel as hexadecimal strings."""
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value
