"""Fuzz target: any file is read as a capture to its end, or refused as damaged; what comes of it is shown.

make fuzz FUZZ_SECONDS=60
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from xenintro.capture import Capture, CapturedPage
    from xenintro.errors import DamagedInputError
    from xenintro.sinks.jsonl import event_record, line, timestamp
    from xenintro.sinks.text import Lines
    from xenintro_cli.style import Style

LINES = Lines(Style(color=False, utf8=True), 80)
#: More records than this from one input are work without end.
MOST = 100_000


def test_one_input(data: bytes) -> None:
    """The input is the file."""
    fd = os.memfd_create("capture")
    try:
        os.write(fd, data)
        read(f"/proc/self/fd/{fd}", len(data))
    finally:
        os.close(fd)


def read(path: str, size: int) -> None:
    """Read and show everything."""
    try:
        capture = Capture(path)
    except DamagedInputError:
        return
    with capture:
        for count, record in enumerate(capture.records()):
            assert count < MOST
            if isinstance(record, CapturedPage):
                assert len(record.raw) == 4096
                continue
            event = record.event
            assert len(record.response) in (0, event.interface.slot_size)
            line({"ts": timestamp(record.taken_ns)} | event_record(event))
            LINES.line(event, time_ns=record.taken_ns, answer=record.answer, pause_ns=record.pause_ns)
            if record.rule is not None:
                record.rule.message(event)
        assert capture.position == size
        assert capture.damage is None or isinstance(capture.damage, DamagedInputError)


def main() -> None:
    """Run libFuzzer with small captures of several interfaces as corpus, plain and compressed."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.capture.making import RULE, answered, write_capture
    from tests.slots import make_slot
    from xenintro.abi import interface

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        for abi in ("mem_event-4.0.1", "mem_event-4.2", "vm_event-1", "vm_event-7"):
            layout = interface(abi)
            slots = [make_slot(layout, code, paused=True) for code in list(layout.reasons)[1:4] or [0]]
            batch = [answered(raw, layout, taken_ns=at, rule=RULE) for at, raw in enumerate(slots)]
            path = write_capture(corpus / abi, [batch], layout)
            corpus.joinpath(f"{abi}.gz").write_bytes(gzip.compress(path.read_bytes()))
        atheris.Setup([sys.argv[0], folder, "-max_len=8192", "-len_control=0", *sys.argv[1:]], test_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
