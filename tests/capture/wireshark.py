"""tshark on captures, with the dissector and nothing of this user's configuration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from xenintro.wireshark.dissector import dissector

if TYPE_CHECKING:
    from pathlib import Path

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")


class Tshark:
    """Runs tshark in a home of its own."""

    def __init__(self, home: Path) -> None:
        self._environment = {**os.environ, "HOME": str(home)}
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "WIRESHARK_CONFIG_DIR"):
            self._environment.pop(name, None)
        self.script = home / "vm_event.lua"
        self.script.write_text(dissector(), encoding="utf-8")

    def run(self, *arguments: str, script: bool = True, code: int = 0) -> str:
        """What it prints; anything it has to say of Lua, and another exit code, fail the test."""
        lua = ("-X", f"lua_script:{self.script}") if script else ()
        done = subprocess.run(
            ["tshark", *lua, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Lua" not in done.stderr
        assert "Lua Error: " not in done.stdout
        return done.stdout

    def packets(self, capture: Path, *arguments: str, code: int = 0) -> list[dict[str, list[str]]]:
        """The fields of every packet by their names, each with its values in order."""
        printed = self.run(
            *("-r", str(capture), "-T", "json", "--no-duplicate-keys", "-J", "vm_event frame", *arguments),
            code=code,
        )
        return [_flat(packet["_source"]["layers"]) for packet in json.loads(printed)]

    def infos(self, capture: Path, *arguments: str) -> list[str]:
        """The info column of every packet."""
        printed = self.run("-r", str(capture), "-T", "fields", "-e", "_ws.col.Info", *arguments)
        return printed.splitlines()

    def selected(self, capture: Path, display_filters: list[str]) -> list[list[int]]:
        """Numbers of the packets that each display filter selects, from 0."""
        listeners = self.script.with_name("listeners.lua")
        made = "".join(
            f"local listener = Listener.new('frame', [[{display_filter}]])\n"
            f"function listener.packet(pinfo) print({n}, pinfo.number - 1) end\n"
            for n, display_filter in enumerate(display_filters)
        )
        # Filters know the fields of a script only once all scripts have been loaded.
        listeners.write_text(
            'local later = Proto("later", "later")\nlocal done\n'
            f"function later.init()\nif done then return end\ndone = true\n{made}end\n",
            encoding="utf-8",
        )
        numbers: list[list[int]] = [[] for _ in display_filters]
        printed = self.run("-X", f"lua_script:{listeners}", "-r", str(capture), "-q")
        for line in printed.splitlines():
            n, number = line.split()
            numbers[int(n)].append(int(number))
        return numbers


def _flat(layer: Any) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}

    def walk(node: Any) -> None:
        for name, value in node.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    walk(one)
                else:
                    fields.setdefault(name, []).append(one)

    walk(layer)
    return fields
