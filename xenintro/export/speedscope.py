"""Stacks for speedscope.app: a profile weighed by events, one by pause (its file format's schema of 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from xenintro.export.stacks import stacks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.export import Options


def export(info: CaptureInfo, events: Iterable[Answered], output: BinaryIO, options: Options) -> None:
    """Write one document."""
    counted = stacks(info, events)
    frames: dict[str, int] = {}
    samples = [[frames.setdefault(frame, len(frames)) for frame in stack.frames] for stack in counted]
    document = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": f"xenintro {info.version}".strip(),
        "name": info.domain or "capture",
        "activeProfileIndex": ["events", "pause"].index(options.weight),
        "shared": {"frames": [{"name": frame} for frame in frames]},
        "profiles": [
            _profile("events", "none", samples, [stack.events for stack in counted]),
            _profile("pause", "nanoseconds", samples, [stack.pause_ns for stack in counted]),
        ],
    }
    output.write(msgspec.json.encode(document))


def _profile(
    name: str, unit: str, samples: Sequence[Sequence[int]], weights: Sequence[int]
) -> dict[str, Any]:
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
