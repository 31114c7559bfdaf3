"""A bar on stderr while a capture is gone through; none where nobody would see it."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.answered import Answered
    from xenintro.capture.reader import Capture

#: Events between two looks at the clock.
_STRIDE = 4096


def with_progress(capture: Capture, label: str, *, quiet: bool) -> Iterator[Answered]:
    """The events of a capture; how far it is, how fast and how long it will take is shown on a terminal."""
    size = capture.size
    if quiet or not size or not sys.stderr.isatty():
        yield from capture
        return
    started = monotonic()
    with click.progressbar(
        length=size, label=label, file=sys.stderr, width=0, item_show_func=lambda text: text
    ) as bar:
        for count, answered in enumerate(capture, 1):
            if not count % _STRIDE:
                rate = count / (monotonic() - started)
                bar.update(capture.position - bar.pos, f"{rate:,.0f} events/s".replace(",", " "))
            yield answered
        bar.update(size - bar.pos, "")
