"""Folded stacks, one a line with its weight, as flamegraph.pl, inferno and speedscope read them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

from xenintro.export.stacks import stacks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.export import Options

#: What separates frames and lines.
_RESERVED = re.compile(r"[;\x00-\x1f\x7f]")


def export(info: CaptureInfo, events: Iterable[Answered], output: BinaryIO, options: Options) -> None:
    """Write a line per stack; weights are events, or nanoseconds of pause."""
    for stack in stacks(info, events):
        weight = stack.events if options.weight == "events" else stack.pause_ns
        frames = ";".join(_RESERVED.sub("_", frame) for frame in stack.frames)
        output.write(f"{frames} {weight}\n".encode())
