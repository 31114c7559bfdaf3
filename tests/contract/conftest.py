"""The real libraries and headers of three releases, from Debian, unpacked and not installed."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.lab import cache, debs

#: Debian's suites and the release of Xen in each.
SUITES = {"bullseye": (4, 14), "bookworm": (4, 17), "trixie": (4, 20)}


class RealXen(NamedTuple):
    """One release's libraries and headers."""

    release: tuple[int, int]
    libraries: Path
    include: Path


def _fetch(suite: str) -> RealXen:
    release = SUITES[suite]

    def recipe(work: Path) -> None:
        # The dependencies come along; of these only Xen's are wanted, never another libc.
        found = debs.download(suite, ["libxen-dev"])
        debs.unpack((deb for deb in found if deb.name.startswith("libxen")), work)

    tree = cache.built(f"libxen-{suite}", cache.fingerprint(suite, release), recipe)
    return RealXen(release, tree / "usr/lib/x86_64-linux-gnu", tree / "usr/include")


@pytest.fixture(scope="session", params=SUITES)
def real_xen(request: pytest.FixtureRequest) -> RealXen:
    if platform.machine() != "x86_64":
        pytest.skip("the packages are those of amd64")
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get to download Debian's libxenctrl with")
    return _fetch(request.param)
