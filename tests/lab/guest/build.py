"""Assemble and link the guest."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.lab import cache
from tests.lab.guest import facts

HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("boot.S", "kinds.S", "report.S")]


def build(out: Path) -> None:
    """Write the guest's ELF file."""
    define = [f"--defsym={name}={value:#x}" for name, value in facts.symbols().items()]
    with tempfile.TemporaryDirectory() as scratch:
        thing, log = Path(scratch, "guest.o"), Path(scratch, "log")
        cache.run(["as", "--64", "--fatal-warnings", *define, "-o", thing, *SOURCES], log)
        link: list[str | Path] = ["ld", "-nostdlib", "-z", "max-page-size=4096", "-T", HERE / "guest.ld"]
        cache.run([*link, *define, "-o", out, thing], log)
