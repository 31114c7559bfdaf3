"""One boot per emulated CPU and Xen release, shared by all tests that want it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cache import LabUnavailable
from tests.lab.payload import newest_wheel, payload
from tests.lab.rig import Rig

#: CPU and Xen of each boot, in the order of their running; the second part only when asked for.
BOOTS = [("vmx", "4.17"), ("svm", "4.17")]
MORE_BOOTS = [("svm", "4.14"), ("svm", "4.20")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-releases", action="store_true", help="the lab on Xen 4.14 and 4.20 too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rig" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--all-releases", default=False)
        boots = [*BOOTS, *(MORE_BOOTS if everything else [])]
        boots = [boot for boot in boots if boot[0] in getattr(metafunc.module, "CPUS", ("vmx", "svm"))]
        metafunc.parametrize(
            "rig", boots, indirect=True, scope="session", ids=["-".join(boot) for boot in boots]
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.lab)
            # The first test of a boot may have to download and compile an emulator before.
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A booted dom0 with the wheel installed."""
    cpu, xen = request.param
    try:
        booted = Rig(cpu, xen, payload(newest_wheel()))
    except LabUnavailable as why:
        pytest.skip(str(why))
    with booted:
        yield booted
