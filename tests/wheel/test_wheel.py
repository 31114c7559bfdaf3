"""Each wheel, built and installed where nothing of the source tree is in reach.

The dependencies come from the environment that runs the tests; xenintro itself does not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

for module in ("build", "auditwheel", "abi3audit"):
    pytest.importorskip(module, reason="needs the extra 'wheel'")

ROOT = Path(__file__).parents[2]
# Both wheels are built in the tree, where one build is in the other's way.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.alone]

ROUND_TRIP = """
import struct
from xenintro.xen.ring import Ring
page = bytearray(4096)
ring = Ring(page, 400, 8)
ring.init()
page[64:464] = request = bytes(range(200)) * 2
struct.pack_into("=I", page, 0, 1)
assert ring.take() == request
ring.put(request[::-1])
ring.publish()
assert page[64:464] == request[::-1]
print(struct.unpack_from("=4I", page))
"""
NO_RING = """
from xenintro.errors import NotSupportedError
try:
    import xenintro.xen.ring
except NotSupportedError as error:
    print(*error.lines(), sep="\\n")
"""
PICTURE = """
import io
from xenintro.capture.info import CaptureInfo
from xenintro.export import Options
from xenintro.export.heatmap import export
page = io.BytesIO()
export(CaptureInfo(abi="vm_event-7", domain="win10"), [], page, Options())
print(page.getvalue().decode())
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XENINTRO"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Installed:
    """A clean environment with one wheel in it."""

    wheel: Path
    root: Path

    def python(self, code: str) -> str:
        return run(self.root / "bin/python", "-c", code, cwd=self.root)

    def xenintro(self, *arguments: str) -> str:
        return run(self.root / "bin/xenintro", *arguments, cwd=self.root)


def build_and_install(work: Path, *options: str) -> Installed:
    run(sys.executable, ROOT / "tools/wheel.py", *options, "--out", work)
    (wheel,) = work.glob("*.whl")
    root = work / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", root)
    python = root / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    # A path in a .pth file is searched last, and the .pth files there (an editable
    # installation of xenintro, for one) are not read.
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site) / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return Installed(wheel, root)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return build_and_install(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return build_and_install(tmp_path_factory.mktemp("pure"), "--pure")


@pytest.mark.parametrize("kind", ["native", "pure"])
def test_it_runs(kind: str, request: pytest.FixtureRequest) -> None:
    installed: Installed = request.getfixturevalue(kind)
    where = installed.python("import xenintro; print(xenintro.__file__)")
    assert where.startswith(str(installed.root))
    version = installed.wheel.name.split("-")[1]
    assert version in installed.xenintro("--version")


@pytest.mark.parametrize("kind", ["native", "pure"])
def test_it_has_what_pictures_are_made_of(kind: str, request: pytest.FixtureRequest) -> None:
    installed: Installed = request.getfixturevalue(kind)
    page = installed.python(PICTURE)
    assert "<title>win10: pages over time</title>" in page
    assert "class Heatmap" in page


def test_native_wheel_is_for_every_python_and_old_libcs(native: Installed) -> None:
    tag = re.search(r"-cp311-abi3-[\w.]*manylinux_2_(\d+)_\w+\.whl$", native.wheel.name)
    assert tag, native.wheel.name
    assert int(tag[1]) <= 36  # the libc of Debian 12, the oldest dom0 with a Python 3.11


def test_native_files_know_nothing_of_the_machine(native: Installed) -> None:
    with zipfile.ZipFile(native.wheel) as wheel:
        files = [name for name in wheel.namelist() if name.endswith(".so")]
        assert files == ["xenintro/sim/_client.abi3.so", "xenintro/xen/_native.abi3.so"]
        for name in files:
            code = wheel.read(name)
            assert sys.base_prefix.encode() not in code
            assert str(ROOT).encode() not in code


def test_native_ring(native: Installed) -> None:
    assert native.python(ROUND_TRIP) == "(1, 2, 1, 1)\n"


def test_native_watches_the_simulator(native: Installed) -> None:
    seen = native.xenintro("watch", "--xen", "sim", "--domid", "1", "-c", "10", "--format", "jsonl")
    assert len(seen.splitlines()) == 10


def test_pure_wheel_is_for_every_machine(pure: Installed) -> None:
    assert pure.wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(pure.wheel) as wheel:
        assert not [name for name in wheel.namelist() if ".so" in Path(name).suffixes]
        (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/WHEEL")]
        assert "Root-Is-Purelib: true" in wheel.read(metadata).decode()


def test_pure_wheel_says_what_is_missing(pure: Installed) -> None:
    said = pure.python(NO_RING)
    assert said.startswith("error: this installation of xenintro cannot use a ring\n")
    assert "xenintro.xen._native" in said
