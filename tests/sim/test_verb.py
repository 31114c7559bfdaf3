"""``xenintro sim`` as people use it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.runner import xenintro

XEN_ACCESS = Path("/usr/lib/xen-4.17/bin/xen-access")
CLIENT = str(Path(__file__).with_name("client.py"))


def test_exit_code_is_the_commands() -> None:
    done = xenintro("sim", "--scenario", "idle", "--", "sh", "-c", "echo out; exit 7")
    assert (done.code, done.stdout, done.stderr) == (7, "out\n", "")


def test_killed_command() -> None:
    assert xenintro("sim", "--scenario", "idle", "--", "sh", "-c", "kill -9 $$").code == 137


def test_broken_rules_are_named(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    attach = "h = interface(); attach(h); xc.xc_monitor_cpuid(h, 1, True)"
    done = xenintro(
        *("sim", "--scenario", "storm", "--vcpus", "2", "--report", str(report)),
        *("--", sys.executable, CLIENT, f"{attach}; import time; time.sleep(0.2)"),
    )

    assert done.code == 0
    result = json.loads(report.read_text())
    assert [entry["rule"] for entry in result["violations"]] == ["ring-left"]
    assert (result["events"], result["answered"], result["stuck_vcpus"]) == (2, 0, [0, 1])
    assert "broken rule ring-left" in done.stderr
    assert "vcpu 0, 1 will never run again" in done.stderr


@pytest.mark.skipif(not XEN_ACCESS.exists(), reason="xen-access 4.17 is not installed")
def test_events_interrupts_the_command(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = xenintro("sim", "--events", "50", "--report", str(report), "--", "xen-access", "1", "cpuid")

    assert done.code == 0
    assert "broken rule" not in done.stderr
    result = json.loads(report.read_text())
    assert result["answered"] == result["events"] >= 50
    assert "CPUID executed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "no command to run"),
        (("--scenario", "bot", "--", "true"), 2, "did you mean: --scenario boot"),
        (("--abi", "vm_event7", "--", "true"), 2, "did you mean: --abi vm_event-7"),
        (("--vcpus", "17", "--", "true"), 2, "17"),
        (("--", "no-such-program"), 127, "cannot run no-such-program"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = xenintro("sim", *arguments)
    assert done.code == code
    assert words in done.stderr


def test_scenario_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[op]]\ndo = "cpud"\n')
    done = xenintro("sim", "--scenario", str(path), "--", "true")
    assert done.code == 2
    assert "did you mean 'cpuid'" in done.stderr
    path.write_text('[[op]]\ndo = "cpuid"\nleafs = [1]\n')
    done = xenintro("sim", "--scenario", str(path), "--", "true")
    assert done.stderr.startswith("error: ")
    assert "does not take leafs" in done.stderr
    path.write_text('[[op]]\ndo = "wrmsr"\nmsr = "lstar"\n')
    done = xenintro("sim", "--scenario", str(path), "--", "true")
    assert (done.code, "lacks 'values'" in done.stderr) == (2, True)
    path.write_text('pace = 5\n[[op]]\ndo = "cpuid"\nleaves = [1, [4, 2]]\n')
    assert xenintro("sim", "--scenario", str(path), "--", "true").code == 0
