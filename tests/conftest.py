"""Fixtures shared by all tests."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from tests.golden import golden_pages

# A run in the background inherits ignored signals, which the commands under test would rightly keep ignoring.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGTSTP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# How long an example takes is the machine's business.
settings.register_profile("xenintro", deadline=None)
settings.load_profile("xenintro")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take a golden page on every one."""
    if "golden" in metafunc.fixturenames:
        pages = golden_pages()
        metafunc.parametrize("golden", pages, ids=[page.name for page in pages])
