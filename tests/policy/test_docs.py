"""Every file and command of docs/policies.md, in the order of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.runner import environment
from xenintro.policy.answers import ACTIONS
from xenintro.policy.rules import LEVELS
from xenintro.policy.spec import library

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
BLOCKS = re.findall(r"```(\w+)(?: (\S+))?\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_command_prints_what_the_page_says(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    command = bin_directory / "xenintro"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m xenintro_cli "$@"\n')
    command.chmod(0o755)
    for kind, name, text in BLOCKS:
        if kind == "console":
            run(text, tmp_path, bin_directory)
        else:
            (tmp_path / name).write_text(text)


def run(session: str, directory: Path, bin_directory: Path) -> None:
    """A shell session: commands behind $, and what they print; ``...`` stands for anything."""
    pieces = re.split(r"^\$ (.*)\n", session, flags=re.MULTILINE)[1:]
    commands = pieces[::2]
    script = "".join(f"{command}\nstatus=$?; echo ---- $status; (exit $status)\n" for command in commands)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=directory,
        env=environment(PATH=f"{bin_directory}:{os.environ['PATH']}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    printed = re.split(r"^---- \d+\n", done.stdout, flags=re.MULTILINE)
    assert printed.pop() == ""
    for command, expected, got in zip(commands, pieces[1::2], printed, strict=True):
        pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*")
        assert re.fullmatch(pattern, got.strip(), flags=re.DOTALL), f"{command}\n{got}"


def test_the_tables_are_complete() -> None:
    for word in (*ACTIONS, *LEVELS, *(path.stem for path in library())):
        assert re.search(rf"`{word}\b", PAGE), word
