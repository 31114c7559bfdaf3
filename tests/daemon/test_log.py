"""Log lines: for people, for the journal, and for nobody."""

from __future__ import annotations

import logging
import os

import pytest

from xenintro.service.log import LogHandler


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def log(handler: LogHandler, level: int, text: str) -> None:
    handler.handle(logging.LogRecord("x", level, "", 0, text, None, None))


def test_priorities_for_the_journal(pipe: tuple[int, int]) -> None:
    handler = LogHandler(pipe[1], journal=True)
    for level in (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
        log(handler, level, "a\nb")
    assert os.read(pipe[0], 4096) == b"<3>a b\n<4>a b\n<6>a b\n<7>a b\n"


def test_plain_lines_for_people(pipe: tuple[int, int]) -> None:
    handler = LogHandler(pipe[1], journal=False)
    log(handler, logging.INFO, "watching")
    log(handler, logging.ERROR, "no")
    assert os.read(pipe[0], 4096) == b"watching\nerror: no\n"


def test_repeated_warnings_are_counted(pipe: tuple[int, int]) -> None:
    handler = LogHandler(pipe[1], journal=False)
    for _ in range(1000):
        log(handler, logging.WARNING, "it fails")
    log(handler, logging.WARNING, "another")
    handler._said["it fails"] = 0.0  # its time is over
    log(handler, logging.WARNING, "it fails")
    lines = os.read(pipe[0], 1 << 16).decode().splitlines()
    assert lines == ["warning: it fails", "warning: another", "warning: it fails (and 999 times more)"]


def test_nobody_reads(pipe: tuple[int, int]) -> None:
    """A full pipe makes nobody wait."""
    handler = LogHandler(pipe[1], journal=False)
    for number in range(20000):
        log(handler, logging.INFO, f"line {number}")
    assert handler.dropped > 0
