"""Runs the installed command as people do: another process, its own streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

COMMAND = (sys.executable, "-m", "xenintro_cli")
TIMEOUT = 60


class Outcome(NamedTuple):
    code: int
    stdout: str
    stderr: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON Lines on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def error(self) -> list[str]:
        """The lines of the error message."""
        lines = self.stderr.splitlines()
        start = next((n for n, line in enumerate(lines) if line.startswith("error:")), len(lines))
        return lines[start:]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would change the output."""
    dropped = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "XENINTRO_XEN")
    return {name: value for name, value in os.environ.items() if name not in dropped} | changes


def xenintro(*args: str, stdin: bytes | None = None, **changes: str) -> Outcome:
    """Run one command to its end."""
    done = subprocess.run(
        [*COMMAND, *args],
        input=stdin or b"",
        capture_output=True,
        timeout=TIMEOUT,
        env=environment(**changes),
        check=False,
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
