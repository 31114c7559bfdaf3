"""Fuzz target: any text is refused with a place in it, or never raises, and explains itself as it answers.

make fuzz FUZZ_SECONDS=60
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, interface
    from xenintro.answered import Answered
    from xenintro.codec import decode
    from xenintro.errors import ExpressionError
    from xenintro.events import EVENT_TYPES
    from xenintro.policy.language.columns import Columns
    from xenintro.policy.language.expression import compile_expression, compile_filter
    from xenintro.policy.language.template import compile_template

LAYOUTS = [interface(one, arch) for one in INTERFACE_IDS for arch in ARCHITECTURES]
REASONS = [None, *EVENT_TYPES]
NAMES = {"hot": [1, "0x10-0x20", "LSTAR"], "limit": 7, "word": "w"}


class Guest:
    """A domain at a time."""

    domid, name, now_ns = 1, "tiny", 0


def test_one_input(data: bytes) -> None:
    """Three bytes choose reason, kind of text and interface, 32 are the event's, the rest is text."""
    if len(data) < 35:
        return
    reason, kind, layout = REASONS[data[0] % len(REASONS)], data[1] % 4, LAYOUTS[data[2] % len(LAYOUTS)]
    text = data[35:].decode(errors="replace")
    events = [event for event in _events(layout, data[3:35]) if reason in (None, event.reason)]
    try:
        _evaluate(kind, text, reason, events)
    except ExpressionError as error:
        assert 0 <= error.offset <= len(text)
        assert error.lines()


def _evaluate(kind: int, text: str, reason: str | None, events: list) -> None:
    guest = Guest()
    if kind == 3:
        columns = Columns(text)
        for event in events:
            assert "\n" not in columns.row(_answered(event), guest, ts="", seq=0)
        return
    if kind == 2:
        template = compile_template(text, reason, names=NAMES)
        for event in events:
            template(event, guest)
        return
    make = (
        (lambda: compile_filter(text, names=NAMES))
        if kind
        else lambda: compile_expression(text, reason, names=NAMES)
    )
    one, twin = make(), make()
    for number, event in enumerate(events):
        guest.now_ns = number * 10**8
        subject = _answered(event) if kind else event
        answer = one(subject, guest)
        assert answer is True or answer is False
        assert twin.explain(subject, guest).value is answer


def _events(layout, payload: bytes) -> list:
    """An event of every reason of the interface, with the same bytes after the header."""
    found = []
    for code in layout.reasons or {0: ""}:
        raw = bytearray((payload * 20)[: layout.slot_size])
        for name, value in (("reason", code), ("version", layout.version)):
            if name in layout.header and value is not None:
                field = layout.header[name]
                raw[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
        found.append(decode(bytes(raw), layout))
    return found


def _answered(event) -> Answered:
    return Answered(event, "allow", b"sent", 0, 1)


def main() -> None:
    """Run libFuzzer with the conditions of the tests as corpus, and the language's words as dictionary."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.policy import test_expression, test_mistakes, test_properties, test_template

    texts = [
        str(one)
        for module in (test_expression, test_mistakes, test_template)
        for test in vars(module).values()
        for mark in getattr(test, "pytestmark", ())
        if mark.name == "parametrize"
        for one in (case if isinstance(case, str) else case[0] for case in mark.args[1])
    ]
    with tempfile.TemporaryDirectory() as directory:
        corpus, words = Path(directory, "corpus"), Path(directory, "words")
        corpus.mkdir()
        for number, text in enumerate(texts):
            head = bytes([number % len(REASONS), number % 4, number % len(LAYOUTS)])
            Path(corpus, str(number)).write_bytes(head + bytes(range(32)) + text.encode())
        words.write_text("".join(f'"{word}"\n' for word in test_properties.WORDS if '"' not in word))
        atheris.Setup(
            [sys.argv[0], str(corpus), "-max_len=600", f"-dict={words}", *sys.argv[1:]], test_one_input
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
