"""What a boot brings along beside Debian: the lab's guest and, for those who want it, the wheel."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.lab import cache, host, image
from tests.lab.guest import build
from tests.lab.releases import DEFAULT, RELEASES

REPOSITORY = Path(__file__).parents[2]
_PACKAGES = "usr/lib/python3/dist-packages"


def newest_wheel() -> Path:
    """The wheel that `make wheel` built last (`XENINTRO_WHEEL` names another)."""
    if named := os.environ.get("XENINTRO_WHEEL"):
        return Path(named)
    # Of the two that `make wheel` builds, the one with the native part: without it nothing attaches.
    wheels = sorted((REPOSITORY / "dist").glob("*x86_64.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        raise cache.LabUnavailable("no wheel in dist/ (run: make wheel)")
    return wheels[-1]


def _install(wheel: Path, tree: Path) -> None:
    """Unpack the wheel and what it depends on for dom0's Python, and compile it there."""
    target = tree / _PACKAGES
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_28", "_2_34")]
    cache.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--target", target, "--no-compile", "--only-binary=:all:", "--python-version=3.11",
         "--implementation=cp", *platforms, "--platform=linux_x86_64", wheel],
        tree.parent / "pip.log",
    )  # fmt: skip
    (tree / "usr/bin").mkdir()
    for script in (target / "bin").iterdir():
        text = script.read_text().partition("\n")[2]
        (tree / "usr/bin" / script.name).write_text(f"#!/usr/bin/python3\n{text}")
        (tree / "usr/bin" / script.name).chmod(0o755)
    shutil.rmtree(target / "bin")
    image.compile_bytecode(image.image(RELEASES[DEFAULT]).root, target)


def payload(wheel: Path | None) -> Path:
    """The archive of this guest and this wheel, made once."""
    host.provide()

    def assemble(into: Path) -> None:
        tree = into / "tree"
        (tree / "root").mkdir(parents=True)
        build.build(tree / "root/guest.elf")
        if wheel:
            _install(wheel, tree)
        image.archive(tree, into / "payload")
        shutil.rmtree(tree)

    parts = [*build.SOURCES, build.HERE / "guest.ld", build.HERE / "facts.py", Path(__file__)]
    key = cache.fingerprint(*parts, *([wheel] if wheel else []))
    return cache.built("payload" if wheel else "payload-bare", key, assemble) / "payload"
