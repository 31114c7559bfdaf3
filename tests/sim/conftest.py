"""Every simulated host of a test is closed at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sim import host

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _closed_hosts() -> Iterator[None]:
    yield
    while host.LIVE:
        host.LIVE.pop().close()
