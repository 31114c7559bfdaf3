"""Answered requests and captures made to order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.slots import interfaces, make_slot
from xenintro.abi import Interface, interface
from xenintro.answered import Answered
from xenintro.capture import CaptureInfo, CaptureWriter, RecordedRule
from xenintro.codec import decode, encode
from xenintro.response import allow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

V7 = interface("vm_event-7")
CR3 = make_slot(V7, 4, payload={"index": 1, "new_value": 0x103000}, vcpu_id=1, paused=True)
RULE = RecordedRule("freeze-lstar", "critical", ("msr", "kernel"), "LSTAR was written")


def answered(
    raw: bytes = CR3,
    layout: Interface = V7,
    *,
    taken_ns: int = 1_000,
    pause_ns: int = 500,
    rule: RecordedRule | None = None,
    would: str | None = None,
    late: bool = False,
) -> Answered:
    """A request that was allowed."""
    event = decode(raw, layout)
    response = encode(event, allow(event))
    return Answered(event, "allow", response, taken_ns, taken_ns + pause_ns, rule, would, late)


def info_of(layout: Interface = V7) -> CaptureInfo:
    """Of a capture whose times are nanoseconds since the epoch."""
    return CaptureInfo(abi=layout.id, arch=layout.arch, domid=1, domain="tiny")


def write_capture(path: Path, batches: Iterable[Sequence[Answered]], layout: Interface = V7) -> Path:
    """A closed capture."""
    with CaptureWriter(path, info_of(layout), force=True) as writer:
        for batch in batches:
            writer.write(batch)
    return path


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
_RULES = st.builds(
    RecordedRule,
    _NAMES,
    st.none() | _NAMES,
    st.lists(_NAMES, max_size=3).map(tuple),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Interface, list[list[Answered]]]:
    """Batches of one interface, with any bytes in the slots, at ascending times."""
    layout = draw(interfaces())
    size, now = layout.slot_size, 1
    out: list[list[Answered]] = []
    for count in draw(st.lists(st.integers(0, 4), max_size=5)):
        batch = []
        ends = now + 10 * count
        for _ in range(count):
            raw, response = (draw(st.binary(min_size=1, max_size=8)).ljust(size, b"\xa5") for _ in "ab")
            rule, would = draw(st.none() | _RULES), draw(st.none() | _NAMES)
            batch.append(
                Answered(
                    *(decode(raw, layout), draw(_NAMES), response, now, ends),
                    rule,
                    would,
                    draw(st.booleans()),
                )
            )
            now += draw(st.integers(1, 3))
        now = max(now, ends) + 1
        out.append(batch)
    return layout, out
