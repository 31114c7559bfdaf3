"""A watching process killed at random instants: no guest is lost. The whole campaign is ``make kills``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_no_guest_is_lost() -> None:
    # In a process of its own: it forks at every turn, and a test runner has threads and plugins.
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", "--count", "80", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) == 80, done.stderr
    assert [kill for kill in kills if kill["lost"]] == []
    assert {kill["victim"] for kill in kills} >= {"worker", "front"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_that_was_answered_is_missing_in_a_capture() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", "--record", "--count", "20", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(turns) == 20, done.stderr
    bad = ("missing", "wrong", "unreadable")
    assert [turn for turn in turns if turn["kill"]["lost"] or any(turn[key] for key in bad)] == []
    assert sum(turn["answered"] for turn in turns) > 0
