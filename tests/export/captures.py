"""The samples as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.export.samples import SAMPLES
from xenintro.capture import CaptureWriter

if TYPE_CHECKING:
    from pathlib import Path


def write_sample(name: str, folder: Path) -> Path:
    """A capture ``NAME.pcapng`` of a sample."""
    info, events = SAMPLES[name]
    offset = info.started_ns - info.monotonic_ns
    path = folder / f"{name}.pcapng"
    with CaptureWriter(path, info) as writer:
        writer.write(
            [
                one._replace(taken_ns=one.taken_ns - offset, answered_ns=one.answered_ns - offset)
                for one in events
            ]
        )
    return path
