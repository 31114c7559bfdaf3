"""``xenintro demo``: the main job on a simulated guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xenintro_cli import options
from xenintro_cli.output import Form
from xenintro_cli.watch import Choice, kept, watch

if TYPE_CHECKING:
    from pathlib import Path

#: Something of every kind that the simulated guest does.
EVENTS = "mem:rwx@0x400-0x2fff,cr0,cr3,cr4,msr:lstar,cpuid,int3,debug,desc,guest-request,interrupt"

#: Instructions per second of the simulated guest: some twenty events, which a person can read.
PACE = 60


@click.command(name="demo")
@click.option("-c", "--count", type=click.IntRange(min=1), help="Stop after this many events.")
@click.option("-t", "--duration", type=options.Duration(), help="Stop after this long: 30s, 500ms.")
@options.write
@options.force
@options.output_format
@options.color
@options.talk
def command(
    count: int | None,
    duration: float | None,
    write: Path | None,
    force: bool,
    output_format: str,
    color: str,
    quiet: bool,
) -> int:
    """Watch a simulated guest until Ctrl-C; needs no Xen.

    It is xenintro watch --xen sim --domid 1 with a slow guest, and something of every kind of event.
    """
    choice = Choice(
        domid=1,
        events=EVENTS,
        count=count,
        duration=duration,
        keep=kept(write, None, None, force=force),
        form=Form(format=output_format, color=color),
        quiet=quiet,
    )
    return watch(choice, "sim", pace=PACE)
