"""ring.c and the front end as a plain C program, alone and under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "xenintro/xen"
REQUESTS = "120000"
WARNINGS = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("no C compiler")
    return found


@pytest.mark.parametrize(
    "sanitizer",
    [
        pytest.param([], id="plain"),
        pytest.param(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], id="address-undefined"),
        pytest.param(["-fsanitize=thread"], id="thread"),
    ],
)
def test_exchange(compiler: str, sanitizer: list[str], tmp_path: Path) -> None:
    program = tmp_path / "test_ring"
    sources = [HERE / "test_ring.c", HERE / "front.c", NATIVE / "ring.c"]
    flags = [*WARNINGS, "-D_POSIX_C_SOURCE=200809L", "-O2", "-g", f"-I{NATIVE}", "-pthread"]
    run(compiler, *flags, *sanitizer, *sources, "-o", program)
    assert run(program, REQUESTS) == "ring: ok\n"
