"""The reference consumer's answers, reproduced byte for byte on every golden page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.abi import SLOT0
from xenintro.codec import acknowledge
from xenintro.xen.ring import Ring

if TYPE_CHECKING:
    from tests.golden import GoldenPage


def test_least_responses_are_the_reference_consumers(golden: GoldenPage) -> None:
    if golden.acknowledged is None:  # a damaged page has no reference answer
        assert golden.expected["expect_error"] is not None
        return
    layout = golden.interface
    page = bytearray(golden.page)
    consumer = golden.expected["consumer"]
    ring = Ring(page, layout.slot_size, layout.nr_slots, **consumer)
    for request in golden.expected["held_requests"]:
        start = SLOT0 + request["slot"] * layout.slot_size
        ring.put(acknowledge(golden.page[start : start + layout.slot_size], layout))
    while (raw := ring.take()) is not None:
        ring.put(acknowledge(raw, layout))
    ring.publish()
    assert bytes(page) == golden.acknowledged
