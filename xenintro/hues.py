"""One hue per kind of event, the same in a terminal and in a picture."""

from __future__ import annotations

_HUES = {
    "mem_access": "blue",
    "write_ctrlreg": "magenta",
    "mov_to_msr": "yellow",
    "software_breakpoint": "green",
    "debug_exception": "green",
    "singlestep": "green",
    "descriptor_access": "cyan",
    "unknown": "red",
}


def hue_of(reason: str) -> str:
    """The name of the hue: an ANSI colour, ``bright_black`` (grey) for kinds that have none of their own."""
    return _HUES.get(reason, "bright_black")
