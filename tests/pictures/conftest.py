"""One browser for all tests of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.pictures.browser import Browser


@pytest.fixture(scope="package")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from tests.pictures.browser import browser

    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one
