"""Makes captures of any size out of slots that a real Xen has put on its ring.

``python -m tests.bench.captures PATH COUNT``
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xenintro.abi import interface
from xenintro.answered import Answered
from xenintro.capture import Capture, CaptureInfo, CaptureWriter
from xenintro.codec import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUT = interface("vm_event-7", release="4.17")
SLOTS = Path(__file__).parents[2] / "fixtures" / "captures" / "svm-4.17.pcapng.gz"
START_NS = 1_795_366_799_000_000_000

#: Events in one write; nanoseconds from one event to the next, and to its answer.
_BATCH, _STEP_NS, _PAUSE_NS = 256, 100_000, 27_000

#: Instructions and pages that the events are spread over.
_CODE, _PAGES = 4096, 16384


def answered(count: int) -> Iterator[Answered]:
    """Events with their recorded responses, at other addresses each; times are monotonic, from 0."""
    with Capture(SLOTS) as capture:
        pairs = [(one.event.raw, one.response) for one in capture]
    put = struct.Struct("<Q").pack
    rip = LAYOUT.registers["rip"].offset
    gfn = LAYOUT.payloads["mem_access"]["gfn"].offset
    for number in range(count):
        raw, response = pairs[number % len(pairs)]
        code = 0xFFFFF80000000000 + number * 7919 % _CODE * 16
        raw = raw[:rip] + put(code) + raw[rip + 8 :]
        if raw[8] == 1:  # mem_access
            raw = raw[:gfn] + put(number * 104729 % _PAGES) + raw[gfn + 8 :]
        taken_ns = number * _STEP_NS
        yield Answered(decode(raw, LAYOUT), "allow", response, taken_ns, taken_ns + _PAUSE_NS)


def write(path: Path, count: int) -> Path:
    """Write a capture of so many events; one that exists is replaced."""
    info = CaptureInfo(
        abi=LAYOUT.id, release=LAYOUT.release, domid=1, domain="tiny", nr_vcpus=1, started_ns=START_NS
    )
    with CaptureWriter(path, info, force=True) as writer:
        batch = []
        for one in answered(count):
            batch.append(one)
            if len(batch) == _BATCH:
                writer.write(batch)
                batch = []
        writer.write(batch)
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
