"""Where in the guest events come from: domain, reason, page of code, instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xenintro.export.code import code_address
from xenintro.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo

#: Distinct instructions that are told apart; what comes after them is counted together, by reason.
_MOST = 1 << 18

UNKNOWN, OTHERS = "[unknown]", "[others]"


class Stack(NamedTuple):
    """A stack, outermost frame first, with how often it occurred and how long vCPUs waited in it."""

    frames: tuple[str, ...]
    events: int
    pause_ns: int


def stacks(info: CaptureInfo, events: Iterable[Answered]) -> list[Stack]:
    """Count events by stack; the frames are the domain, the reason, the page of rip (pc on Arm), and rip."""
    counts: dict[tuple[str, int | str], list[int]] = {}
    for answered in events:
        event = answered.event
        address = code_address(event)
        key: tuple[str, int | str] = (event.reason, UNKNOWN if address is None else address)
        count = counts.get(key)
        if count is None:
            if len(counts) >= _MOST:
                key = (event.reason, OTHERS)
            count = counts.setdefault(key, [0, 0])
        count[0] += 1
        count[1] += answered.pause_ns or 0
    domain = info.domain or (UNKNOWN if info.domid is None else f"domid {info.domid}")
    return [
        Stack((domain, reason, *_frames(instruction)), *count)
        for (reason, instruction), count in sorted(
            counts.items(), key=lambda item: (item[0][0], str(item[0][1]))
        )
    ]


def _frames(instruction: int | str) -> tuple[str, ...]:
    if isinstance(instruction, str):
        return (instruction,)
    return f"page 0x{instruction & -PAGE_SIZE:016x}", f"0x{instruction:016x}"
