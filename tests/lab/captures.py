"""Captures of the real lab that are kept as fixtures; `record.py` makes them."""

from __future__ import annotations

from pathlib import Path

from xenintro.capture import Capture

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"

#: The policy of the captures that are named so, in enforce mode.
RULES = CAPTURES / "rules.toml"


def path_of(cpu: str, xen: str, *, rules: bool) -> Path:
    """Where the capture of one boot is."""
    return CAPTURES / f"{cpu}-{xen}{'-rules' if rules else ''}.pcapng.gz"


def names(*, rules: bool) -> list[str]:
    """``CPU-XEN`` of every capture with rules, or without."""
    stems = [path.name.removesuffix(".pcapng.gz") for path in sorted(CAPTURES.glob("*.pcapng.gz"))]
    return [stem.removesuffix("-rules") for stem in stems if stem.endswith("-rules") == rules]


def opened(name: str, *, rules: bool = False) -> Capture:
    """A capture by its ``CPU-XEN``."""
    cpu, xen = name.split("-")
    return Capture(path_of(cpu, xen, rules=rules))
