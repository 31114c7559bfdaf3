"""Which shared libraries a program of another root needs: reading, never running it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64")


def _dynamic(path: Path, tag: str) -> list[str]:
    text = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=False).stdout
    return re.findall(rf"\({tag}\).*\[(.+)\]", text)


def closure(root: Path, programs: Iterable[Path]) -> set[Path]:
    """The libraries (paths in `root`) that these files load, directly or not."""
    found: set[Path] = set()
    pending = list(programs)
    while pending:
        for name in _dynamic(pending.pop(), "NEEDED"):
            places = (root / where / name for where in _LIBRARIES)
            library = next((place for place in places if place.exists()), None)
            if library is None:
                raise FileNotFoundError(f"{name} is in none of the packages")
            if library not in found:
                found.add(library)
                pending.append(library)
    return found
