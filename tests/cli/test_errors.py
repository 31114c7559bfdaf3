"""Three lines and the documented exit code, for what goes wrong before any guest is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.runner import xenintro
from xenintro_cli.ending import guarded

on_xen = Path("/sys/hypervisor/type").exists() and "xen" in Path("/sys/hypervisor/type").read_text()


@pytest.mark.skipif(on_xen, reason="this host runs on Xen")
@pytest.mark.parametrize("verb", [("watch", "--domid", "1"), ("list",)])
def test_no_xen_is_said_in_three_lines(verb: tuple[str, ...]) -> None:
    outcome = xenintro(*verb)
    assert outcome.code == 3
    assert outcome.stdout == ""
    assert len(outcome.error) == 3
    assert outcome.error[0] == "error: this is not a Xen host"
    assert "demo" in outcome.error[2]


@pytest.mark.skipif(on_xen, reason="this host runs on Xen")
def test_doctor_says_what_is_missing() -> None:
    outcome = xenintro("doctor", "--format", "jsonl")
    assert outcome.code == 6
    levels = {record["id"]: record["level"] for record in outcome.records}
    assert levels["control-domain"] == "error"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("watch", "--domid", "1", "-e", "cr9"), "did you mean"),
        (("watch", "--domid", "1", "-t", "soon"), "not a duration"),
        (("wacth",), "Did you mean 'watch'"),
        (("decode",), "missing argument"),
        (("watch", "--domid", "1", "--xen", "/nonexistent"), "libxenctrl"),
    ],
)
def test_mistakes_in_the_command_exit_2(args: tuple[str, ...], words: str) -> None:
    outcome = xenintro(*args)
    assert outcome.code == 2
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("verb", ["list", "doctor", "watch", "decode", "rescue", "demo", "sim"])
def test_every_verb_has_help(verb: str) -> None:
    outcome = xenintro(verb, "--help")
    assert outcome.code == 0
    assert outcome.stdout.startswith(f"Usage: xenintro {verb}")


def test_version() -> None:
    outcome = xenintro("--version")
    assert outcome.code == 0
    assert outcome.stdout.startswith("xenintro 0.")


def test_no_memory_is_said_in_three_lines(capfd: pytest.CaptureFixture[str]) -> None:
    def exhausted() -> None:
        raise MemoryError

    assert guarded(exhausted) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "error: out of memory"
