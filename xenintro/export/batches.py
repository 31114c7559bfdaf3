"""Events in batches, for formats that write many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from xenintro.answered import Answered


def batches(events: Iterable[Answered], size: int, hour_ns: int = 0) -> Iterator[list[Answered]]:
    """Lists of at most ``size`` events that share their interface, and their hour if ``hour_ns`` is given."""
    batch: list[Answered] = []
    shared: Hashable = None
    for answered in events:
        key = (answered.event.interface, answered.taken_ns // hour_ns if hour_ns else 0)
        if batch and (key != shared or len(batch) == size):
            yield batch
            batch = []
        shared = key
        batch.append(answered)
    if batch:
        yield batch
