"""Expected outputs kept as text; ``XENINTRO_GOLDEN=write`` writes them anew, for the diff to be read."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("XENINTRO_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()
