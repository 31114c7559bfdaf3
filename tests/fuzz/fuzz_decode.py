"""Fuzz target: any bytes, any interface, decode to an event that can be shown and answered, or a clear error.

make fuzz FUZZ_SECONDS=60
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, interface
    from xenintro.codec import decode, encode
    from xenintro.errors import DamagedInputError
    from xenintro.response import allow
    from xenintro.ringpage import RingPage
    from xenintro.sinks.jsonl import event_record, line
    from xenintro.sinks.text import Lines
    from xenintro_cli.style import Style

LAYOUTS = [interface(one, arch) for one in INTERFACE_IDS for arch in ARCHITECTURES]
LINES = Lines(Style(color=False, utf8=True), 80)


def test_one_input(data: bytes) -> None:
    """The first byte chooses the interface, the rest is a ring page."""
    if not data:
        return
    layout = LAYOUTS[data[0] % len(LAYOUTS)]
    page = data[1:4097].ljust(4096, b"\0")
    try:
        ring = RingPage(page, layout)
    except DamagedInputError:
        return
    for slot in ring.requests() + ring.slots():
        event = decode(slot.raw, layout)
        line(event_record(event))
        LINES.line(event, time_ns=None, answer="allow", pause_ns=1)
        assert len(encode(event, allow(event))) == layout.slot_size


def main() -> None:
    """Run libFuzzer with the golden pages as corpus."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.golden import golden_pages

    with tempfile.TemporaryDirectory() as corpus:
        for page in golden_pages():
            wanted = page.interface.id, page.interface.arch
            number = next(n for n, one in enumerate(LAYOUTS) if (one.id, one.arch) == wanted)
            Path(corpus, page.name.replace("/", "-")).write_bytes(bytes([number]) + page.page)
        atheris.Setup([sys.argv[0], corpus, "-max_len=4097", *sys.argv[1:]], test_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
