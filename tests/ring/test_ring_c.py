"""ring.c and guard.c as plain C programs, against a front end written apart, and under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "xenintro/xen"
SOURCES = [HERE / "front.c", NATIVE / "ring.c", NATIVE / "guard.c"]
WARNINGS = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
THREAD = "-fsanitize=thread"

sanitizers = pytest.mark.parametrize(
    "sanitizer",
    [
        pytest.param([], id="plain"),
        pytest.param(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], id="address-undefined"),
        pytest.param([THREAD], id="thread"),
    ],
)


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
        # An old ThreadSanitizer on a kernel with more address bits to choose from.
        return run("setarch", "-R", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("no C compiler")
    return found


def build(compiler: str, sanitizer: list[str], name: str, directory: Path) -> Path:
    """Compile a test program; skips where the compiler lacks the sanitizer's library."""
    empty, program = directory / "empty.c", directory / name
    empty.write_text("int main(void) { return 0; }\n")
    if subprocess.run(
        [compiler, *sanitizer, empty, "-o", program], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"{compiler} cannot link with {sanitizer[0]}")
    flags = [*WARNINGS, "-D_POSIX_C_SOURCE=200809L", "-O2", "-g", f"-I{NATIVE}", "-pthread"]
    run(compiler, *flags, *sanitizer, HERE / f"{name}.c", *SOURCES, "-o", program)
    return program


@sanitizers
def test_exchange(compiler: str, sanitizer: list[str], tmp_path: Path) -> None:
    assert run(build(compiler, sanitizer, "test_ring", tmp_path), "120000") == "ring: ok\n"


@pytest.mark.slow
@sanitizers
def test_deadline_while_the_loop_stalls(compiler: str, sanitizer: list[str], tmp_path: Path) -> None:
    assert run(build(compiler, sanitizer, "test_guard", tmp_path), "8000").endswith("guard: ok\n")
