"""Numbers as people write and read them: 0x1f, 30s, 27 µs."""

from __future__ import annotations

import re

from xenintro.errors import UsageError

PAGE_SIZE = 4096
PAGE_SHIFT = 12
U64_MAX = (1 << 64) - 1

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"b": 1, **{f"{one}b": 1000**at for at, one in enumerate("kmgt", 1)}}
_BYTES |= {f"{one}ib": 1024**at for at, one in enumerate("kmgt", 1)}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?([kmgt]?i?b)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|ms|s|m|h)?")


def parse_int(text: str) -> int:
    """Read a decimal or 0x number of at most 64 bits.

    Raises:
        UsageError: not a number, negative, or more than 64 bits.
    """
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= U64_MAX:
        raise UsageError(
            f"not a number: {text!r}",
            why="expected decimal or hexadecimal, 64 bits at most",
            hint="for instance 4096 or 0x1000",
        )
    return value


def parse_duration(text: str) -> float:
    """Read ``30s``, ``500ms``, ``2m`` or a bare number of seconds; returns seconds.

    Raises:
        UsageError: not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"not a duration: {text!r}",
            why="expected a number with a unit: ns, us, ms, s, m, h",
            hint="for instance 30s or 500ms",
        )
    return float(match[1]) * _SECONDS[match[2] or "s"]


def parse_size(text: str) -> int:
    """Read ``100MB``, ``1.5 GiB``; returns bytes.

    Raises:
        UsageError: not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in _BYTES:
        raise UsageError(
            f"not a size: {text!r}",
            why="expected a number with a unit: B, kB, MB, GB, or KiB, MiB, GiB",
            hint="for instance 100MB",
        )
    return int(float(match[1]) * _BYTES[match[2].lower()])


def format_size(size: float) -> str:
    """Bytes with a unit and about three digits: ``512 B``, ``57.1 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.1f} {unit}" if size < 99.95 and unit != "B" else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_ns(nanoseconds: float) -> str:
    """A duration with a unit and about three digits: ``27 µs``, ``1.9 ms``, ``31.4 s``."""
    for limit, divisor, unit in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms")):
        if nanoseconds < limit:
            value = nanoseconds / divisor
            return f"{value:.1f} {unit}" if value < 10 and divisor > 1 else f"{value:.0f} {unit}"
    return f"{nanoseconds / 1e9:.1f} s"
