"""Where the dissector goes: a file to name on the command line, or Wireshark's own folders for good."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from xenintro.errors import UsageError
from xenintro.wireshark.dissector import dissector

PROFILE = "xenintro"


def dissector_file() -> Path:
    """The dissector in a file of the user's cache, written anew if this xenintro generates another.

    Raises:
        UsageError: it cannot be written.
    """
    path = _folder("XDG_CACHE_HOME", ".cache") / "xenintro" / "vm_event.lua"
    _write(path, dissector())
    return path


def install() -> tuple[Path, Path]:
    """Put the dissector where Wireshark and tshark of this user find it, and its colours into a profile.

    Returns:
        The dissector, and the colour rules of the profile `PROFILE`.

    Raises:
        UsageError: they cannot be written.
    """
    plugin = Path.home() / ".local/lib/wireshark/plugins/xenintro.lua"
    colors = _configuration() / "profiles" / PROFILE / "colorfilters"
    _write(plugin, dissector())
    source = resources.files("xenintro.wireshark").joinpath("colorfilters")
    _write(colors, source.read_text(encoding="utf-8"))
    return plugin, colors


def _configuration() -> Path:
    """Wireshark's personal configuration (``tshark -G folders``)."""
    if named := os.environ.get("WIRESHARK_CONFIG_DIR"):
        return Path(named)
    return _folder("XDG_CONFIG_HOME", ".config") / "wireshark"


def _folder(variable: str, usual: str) -> Path:
    named = os.environ.get(variable, "")
    return Path(named) if named.startswith("/") else Path.home() / usual


def _write(path: Path, text: str) -> None:
    """Replace a file at once: another process may be about to read it."""
    data = text.encode()
    try:
        if path.is_file() and path.read_bytes() == data:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_bytes(data)
        new.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}", why=error.strerror or str(error)) from error
