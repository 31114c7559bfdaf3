"""Inspect, replay and exports against a plain read of the same file; and that memory does not grow with it.

``python -m tests.bench.exports [EVENTS]``
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

from tests.bench import captures
from tests.bench.measure import Row, Timing, against
from xenintro.capture import Capture
from xenintro.capture.contents import Contents
from xenintro.capture.replay import ReplaySource
from xenintro.export import FORMATS, Options
from xenintro.export.output import export
from xenintro.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROUNDS = 5
_EVENTS = 50_000
#: How much larger the capture is whose memory is compared.
_LARGER = 4


def export_rows(events: int = _EVENTS) -> Iterator[Row]:
    """A row of time for each format, and one of memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        capture = captures.write(folder / "bench.pcapng", events)
        larger = captures.write(folder / "larger.pcapng", events * _LARGER)
        for what in ("inspect", "replay", *FORMATS):
            yield against(
                f"{what}, {events} events",
                _per_event_us(_runner(what, capture, folder), events),
                "plain read",
                _per_event_us(lambda: _read(capture), events),
                unit="us/event",
                rounds=_ROUNDS,
            )
            small, large = (_peak_mb(what, path, folder) for path in (capture, larger))
            yield Row(
                f"{what}, {events * _LARGER} events",
                "MB peak",
                *(Timing(large, large, large), f"{events} events", Timing(small, small, small)),
                Timing(*[large / small] * 3),
                "flat",
            )


def _per_event_us(run: Callable[[], None], events: int) -> Callable[[], float]:
    def timed() -> float:
        begin = perf_counter_ns()
        run()
        return (perf_counter_ns() - begin) / events / 1000

    return timed


def _read(path: Path) -> None:
    with Capture(path) as capture:
        for _ in capture:
            pass


def _runner(what: str, path: Path, folder: Path) -> Callable[[], None]:
    def run() -> None:
        with Capture(path) as capture:
            if what == "inspect":
                contents = Contents()
                for answered in capture:
                    contents.count(answered, capture.reads)
            elif what == "replay":
                _replay(capture)
            else:
                export(what, capture.info, capture, folder / f"out.{what}", Options(force=True))

    return run


def _replay(capture: Capture) -> None:
    source = ReplaySource(capture, capture.info, capture.interface)
    session = Session(source, clock=source.now_ns)
    source.given_back = session.drained
    session.run()


def _peak_mb(what: str, path: Path, folder: Path) -> float:
    """Peak resident memory of the command."""
    out = folder / "peak"
    verbs = {"inspect": ["inspect", str(path)], "replay": ["replay", str(path)]}
    verb = verbs.get(what, ["export", str(path), "--to", what, "-o", str(out)])
    process = subprocess.Popen([sys.executable, "-m", "xenintro_cli", *verb, "-q"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"xenintro {verb[0]} ended with status {status}")
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    from tests.bench.__main__ import line

    for row in export_rows(*map(int, sys.argv[1:])):
        print(line(row), flush=True)
