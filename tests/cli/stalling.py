"""A monitor that stalls once, until a line comes on stdin: run by test_deadline.py in a process of its own.

Usage: python -m tests.cli.stalling DIRECTORY KIND DEADLINE EVENTS. Says "stalled" when it does, and prints
at the end, which the end of stdin brings, what it saw.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import sys
from typing import TYPE_CHECKING

from xenintro.answered import Answered
from xenintro.session import Session
from xenintro.traps import parse_traps
from xenintro.xen.monitor import Monitor
from xenintro.xen.xc import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.events import Event

#: Events before the stall, so that everything has begun.
_BEFORE = 500


def _sleeps() -> None:
    os.read(0, 1)


def _spins() -> None:
    while not select.select([0], [], [], 0)[0]:
        pass
    os.read(0, 1)


def _holds_the_interpreter() -> None:
    """As a long garbage collection does: no other Python thread runs either."""
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)


_KINDS: dict[str, tuple[str, Callable[[], None]]] = {
    "policy-sleeps": ("policy", _sleeps),
    "policy-spins": ("policy", _spins),
    "policy-holds-the-interpreter": ("policy", _holds_the_interpreter),
    "observer-blocks": ("observer", _sleeps),
}


def main(directory: str, kind: str, deadline: str, events: str) -> None:
    """Watch, stall, go on, and report."""
    where, stall = _KINDS[kind]
    seen: list[tuple[str, bool]] = []
    decided = 0

    def stalls() -> None:
        print("stalled", flush=True)
        stall()

    def decide(event: Event) -> None:
        nonlocal decided
        decided += 1
        if where == "policy" and decided == _BEFORE:
            stalls()

    def observe(batch: list[Answered]) -> None:
        before = len(seen)
        seen.extend((answered.event.reason, answered.late) for answered in batch)
        if where == "observer" and before < _BEFORE <= len(seen):
            stalls()
        if len(seen) > _BEFORE and select.select([0], [], [], 0)[0]:
            session.stop()

    with connect(directory) as xc, Monitor(xc, 1, parse_traps(events), deadline=float(deadline)) as monitor:
        session = Session(monitor, decide=decide, observers=[observe])
        summary = session.run()
    last_late = max(at for at, (_, late) in enumerate(seen) if late)
    result = {
        "deadline_missed": summary.deadline_missed,
        "late": sorted({reason for reason, late in seen if late}),
        "after": sorted({reason for reason, _ in seen[last_late + 1 :]}),
        "events": summary.events,
        "longest_ns": max(pauses.max for pauses in summary.pauses.values()),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
