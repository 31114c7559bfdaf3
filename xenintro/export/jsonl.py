"""JSON Lines: what ``watch`` prints, with the times of the capture (docs/json.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from xenintro.sinks.answered import AnsweredLines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.export import Options


def export(info: CaptureInfo, events: Iterable[Answered], output: BinaryIO, options: Options) -> None:
    """Write one line per event."""
    line = AnsweredLines(info.domid, info.domain).line
    write = output.write
    for seq, answered in enumerate(events):
        write(line(answered, seq))
