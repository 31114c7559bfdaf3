"""What recording costs: the answer, the guest on a simulator, and the disk against plain reads and writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING

from tests.bench import captures
from tests.bench.answering import CASES, PageSource, three_checks
from tests.bench.measure import Row, Timing, against
from xenintro.capture import Capture, CaptureInfo, CaptureWriter
from xenintro.capture.pending import Pending
from xenintro.capture.recording import Recording
from xenintro.guest import Guest
from xenintro.session import Session
from xenintro.sim.launch import Simulation
from xenintro.sinks.jsonl import event_record, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xenintro.answered import Answered

_ANSWERS = 1000
_EVENTS = 20_000
_SIMULATED, _WARM_UP, _RUNS = 3000, 300, 5


def recording_rows() -> Iterator[Row]:
    """With and without, in turns."""
    with tempfile.TemporaryDirectory() as directory:
        yield _answer_row(Path(directory))
        yield from _file_rows(Path(directory))
    yield _simulator_row()


def _answer_row(directory: Path) -> Row:
    """From finding a request to its answer being published, p50; what is recorded comes between two of them.

    So does, with and without, a line as ``watch`` prints it: after nothing at all, caches are as warm as they
    never are.
    """
    pending = Pending()
    recording = Recording(directory / "answers.pcapng", pending=pending)
    recording.begin(CaptureInfo(abi="vm_event-7", domain="tiny"))

    def record(batch: list[Answered]) -> None:
        recording.write(batch)
        _print(batch)

    sessions = [_session(record=record), _session(record=_print)]
    sessions[0][1].note(pending.record)
    recorded, bare = (lambda session=session: _answer_us(*session) for session in sessions)
    row = against("take to answer, recording, p50", recorded, "not recording", bare, unit="us")
    recording.close()
    recording.release()
    return row


def _print(batch: list[Answered]) -> None:
    for answered in batch:
        line(event_record(answered.event))


def _session(**options: object) -> tuple[Session, PageSource]:
    source = PageSource(CASES["mem_access"])
    guest = Guest(1, "-", "tiny", 1)
    session = Session(source, guest=guest, decide=three_checks, **options)  # type: ignore[arg-type]
    return session, source


def _answer_us(session: Session, source: PageSource) -> float:
    times = []
    for _ in range(_ANSWERS):
        source.produce()
        begin = perf_counter_ns()
        session.answer_batch()
        times.append(source.flushed_ns - begin)
    times.sort()
    return times[len(times) // 2] / 1000


def _file_rows(directory: Path) -> Iterator[Row]:
    """Events per second into and out of a file, against the same bytes as they are."""
    path, plain = directory / "events.pcapng", directory / "plain"
    events = list(captures.answered(_EVENTS))
    info = CaptureInfo(abi=captures.LAYOUT.id)

    def written() -> None:
        with CaptureWriter(path, info, force=True) as writer:
            for at in range(0, _EVENTS, 8):
                writer.write(events[at : at + 8])

    written()
    data = path.read_bytes()

    def rate(function: Callable[[], object]) -> Callable[[], float]:
        def measured() -> float:
            begin = perf_counter()
            function()
            return _EVENTS / (perf_counter() - begin)

        return measured

    def read() -> int:
        with Capture(path) as capture:
            return sum(1 for _ in capture)

    yield against(
        "capture, write", rate(written), "plain write", rate(lambda: plain.write_bytes(data)), unit="1/s"
    )
    yield against("capture, read", rate(read), "plain read", rate(path.read_bytes), unit="1/s")


def _simulator_row() -> Row:
    """Events per second of a simulated guest that waits for every answer."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "simulated.pcapng")
        pairs = [(_run("-w", path, "--force"), _run()) for _ in range(_RUNS)]
    return Row(
        "simulator, 2 vCPU, watch -w, events/s",
        "1/s",
        Timing.of([one for one, _ in pairs]),
        "watch",
        Timing.of([other for _, other in pairs]),
        Timing.of([one / other for one, other in pairs]),
        ">= 0.9",
    )


def _run(*options: str) -> float:
    command = [sys.executable, "-m", "xenintro_cli", "watch", "--domid", "1", "-e", "cpuid", "-q", *options]
    with Simulation(vcpus=2, scenario="storm") as simulation:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env=os.environ | simulation.environment
        )
        try:
            simulation.wait("answered", _WARM_UP, timeout=60)
            begin = perf_counter()
            simulation.wait("answered", _WARM_UP + _SIMULATED, timeout=120)
            return _SIMULATED / (perf_counter() - begin)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
