"""``xenintro sim``: any program against a simulated Xen."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xenintro.errors import UsageError
from xenintro.sim.faults import parse_fault
from xenintro.sim.launch import MOST_VCPUS, Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator

# A shell's exit codes for commands that cannot be started or were killed.
_NOT_FOUND, _NOT_EXECUTABLE, _KILLED = 127, 126, 128


@click.command("sim", context_settings={"ignore_unknown_options": True})
@click.option("--vcpus", type=click.IntRange(1, MOST_VCPUS), default=1, show_default=True)
@click.option("--abi", default="vm_event-7", show_default=True, help="vm_event-1 to vm_event-7.")
@click.option(
    "--scenario", default="boot", show_default=True, help="boot, storm, idle, counted, or a TOML file."
)
@click.option("--report", type=click.Path(path_type=Path), help="Write what happened as JSON to this file.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="SPEC",
    help="Let a call fail, hang, kill its caller or meet a disaster: call=xc_monitor_cpuid,nth=2,errno=EIO; "
    "call=xc_monitor_enable,after=1,action=kill-client; call=xc_domain_unpause,order=destroy.",
)
@click.option("--events", type=click.IntRange(min=1), help="Interrupt COMMAND after so many answers.")
@click.argument("command_line", metavar="COMMAND...", nargs=-1, type=click.UNPROCESSED)
def command(
    vcpus: int,
    abi: str,
    scenario: str,
    report: Path | None,
    events: int | None,
    faults: tuple[str, ...],
    command_line: tuple[str, ...],
) -> int:
    """Run a command on a simulated Xen.

    COMMAND finds a fresh host with one guest, domain 1, behind the libraries that it would use on a real
    one. Any program does: this one, or Debian's own xen-access:

        xenintro sim -- xen-access 1 cpuid

    The exit code is COMMAND's. Rules of the interface that it broke are named on stderr.
    """
    if not command_line:
        raise UsageError(
            "no command to run",
            why="sim needs a program that talks to Xen",
            hint="for instance: xenintro sim -- xen-access 1 cpuid",
        )
    if report is not None:
        _check_writable(report)
    specs = [parse_fault(text) for text in faults]
    with Simulation(vcpus, abi, scenario, faults=specs) as simulation:
        code = _run(simulation, list(command_line), events)
        result = simulation.report()
    if report is not None:
        report.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for line in _complaints(result):
        click.echo(line, err=True)
    return code


def _check_writable(report: Path) -> None:
    """Before the run rather than after it."""
    try:
        report.touch()
    except OSError as error:
        raise UsageError(
            f"cannot write the report to {report}", why=error.strerror or str(error), hint="name another file"
        ) from error


def _run(simulation: Simulation, command_line: list[str], events: int | None) -> int:
    environment = {**os.environ, **simulation.environment}
    with _interrupts_are_the_commands():
        try:
            process = subprocess.Popen(command_line, env=environment)
        except OSError as error:
            click.echo(f"error: cannot run {command_line[0]}: {error.strerror}", err=True)
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        watcher = threading.Thread(target=_interrupt_after, args=(simulation, process, events))
        watcher.start()
        code = process.wait()
        watcher.join()
    return code if code >= 0 else _KILLED - code


def _interrupt_after(simulation: Simulation, process: subprocess.Popen[bytes], events: int | None) -> None:
    while events is not None and process.poll() is None:
        if simulation.wait("answered", events, timeout=0.2):
            process.send_signal(signal.SIGINT)
            return


@contextlib.contextmanager
def _interrupts_are_the_commands() -> Iterator[None]:
    """Ctrl-C reaches the whole process group: the command ends on it, and then this does."""
    before = signal.signal(signal.SIGINT, _ignore)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ignore(number: int, frame: object) -> None:
    """Not SIG_IGN, which the command would inherit."""


def _complaints(report: dict[str, Any]) -> list[str]:
    lines = [
        f"sim: broken rule {entry['rule']} ({entry['count']}x): {entry['what']}; first: {entry['first']}"
        for entry in report["violations"]
    ]
    if report["stuck_vcpus"]:
        vcpus = ", ".join(map(str, report["stuck_vcpus"]))
        lines.append(f"sim: vcpu {vcpus} will never run again: nobody answers its request")
    return lines
