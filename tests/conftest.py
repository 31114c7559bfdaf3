"""Fixtures shared by all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.golden import GoldenPage, golden_pages

if TYPE_CHECKING:
    import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden" in metafunc.fixturenames:
        pages = golden_pages()
        metafunc.parametrize("golden", pages, ids=[page.name for page in pages])


__all__ = ["GoldenPage"]
