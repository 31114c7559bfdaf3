"""xenintro beside Debian's xen-access on a real Xen in an emulator, in turns, in one boot."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.bench.measure import Row, Timing
from tests.lab.bench import KINDS, measure
from tests.lab.cache import LabUnavailable
from tests.lab.payload import newest_wheel, payload
from tests.lab.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVENTS, _ROUNDS = 500, 5
_COLUMNS = (("rate", "events/s", "1/s", ">= 0.8"), ("p50", "instruction p50", "us", ""))


def lab_rows() -> Iterator[Row]:
    """Events per second, and what an event costs the guest by its own clock, on QEMU's SVM."""
    try:
        rig = Rig("svm", payload=payload(newest_wheel()), cpus=2)
    except LabUnavailable as why:
        print(f"no lab: {why}", file=sys.stderr)
        return
    with rig:
        for kind in KINDS:
            rows = measure(rig, kind, _EVENTS, _ROUNDS)
            for column, name, unit, goal in _COLUMNS:
                ours = [float(row[column]) for row in rows if row["program"] == "xenintro"]
                theirs = [float(row[column]) for row in rows if row["program"] == "xen-access"]
                yield Row(
                    f"lab, {kind}, {name}",
                    unit,
                    Timing.of(ours),
                    "xen-access",
                    Timing.of(theirs),
                    Timing.of([one / other for one, other in zip(ours, theirs, strict=True)]),
                    goal,
                )
