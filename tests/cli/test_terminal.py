"""On a real terminal: columns that fit, colour that can be turned off, Ctrl-C by its key."""

from __future__ import annotations

import re

import pexpect
import pytest

from tests.cli.runner import COMMAND, TIMEOUT, environment

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def demo(*args: str, columns: int = 160, **changes: str) -> pexpect.spawn:
    return pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "demo", *args],
        dimensions=(40, columns),
        env=environment(**({"TERM": "xterm"} | changes)),
        timeout=TIMEOUT,
        encoding="utf-8",
    )


def ended(child: pexpect.spawn) -> str:
    text = child.read()
    child.close()
    assert child.exitstatus == 0, text
    return str(text).replace("\r\n", "\n")


def header_of(text: str) -> list[str]:
    line = next(line for line in ESCAPES.sub("", text).splitlines() if " event " in line and "vcpu" in line)
    return line.split()


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (160, ["time", "vcpu", "event", "what", "where", "answer", "pause"]),
        (120, ["time", "vcpu", "event", "what", "answer", "pause"]),
        (95, ["vcpu", "event", "what", "answer", "pause"]),
        (80, ["vcpu", "event", "what", "answer"]),
        (40, ["vcpu", "event", "what", "answer"]),
    ],
)
def test_columns_drop_from_the_least_important(columns: int, names: list[str]) -> None:
    text = ended(demo("-c", "20", columns=columns))
    assert header_of(text) == names
    if columns >= 80:
        accesses = [line for line in ESCAPES.sub("", text).splitlines() if " gla " in line]
        assert accesses
        assert all(len(line) <= columns for line in accesses)


def test_colour_follows_the_environment() -> None:
    assert ESCAPES.search(ended(demo("-c", "3")))
    assert not ESCAPES.search(ended(demo("-c", "3", NO_COLOR="1")))
    assert not ESCAPES.search(ended(demo("-c", "3", "--color", "never")))
    assert not ESCAPES.search(ended(demo("-c", "3", TERM="dumb")))


def test_ascii_where_the_terminal_has_nothing_else() -> None:
    text = ended(demo("-c", "40", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C"))
    assert re.search(r"cr3  0x\w+ -> 0x\w+", text)
    assert text.isascii()


def test_ctrl_c() -> None:
    child = demo()
    child.expect("guest_request")
    child.sendintr()
    text = ended(child)
    assert "stopped: traps off, all answered, domain released" in text
    assert "guest paused" in text
