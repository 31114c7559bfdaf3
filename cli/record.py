"""``xenintro record``: watch without printing, into a capture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xenintro.capture.naming import Rotation
from xenintro_cli import options
from xenintro_cli.recording import Keep
from xenintro_cli.watch import Choice, watch

if TYPE_CHECKING:
    from pathlib import Path


@click.command(name="record")
@options.domain
@options.events
@click.option("-c", "--count", type=click.IntRange(min=1), help="Stop after this many events.")
@click.option("-t", "--duration", type=options.Duration(), help="Stop after this long: 30s, 500ms.")
@options.policy
@options.deadline
@options.write
@options.rotate
@options.force
@options.xen
@options.talk
def command(
    domid: int | None,
    name: str | None,
    events: tuple[str, ...],
    count: int | None,
    duration: float | None,
    policy: tuple[str, ...],
    mode: str,
    deadline: float,
    write: Path | None,
    rotate: Rotation | None,
    keep: int | None,
    force: bool,
    selection: str,
    quiet: bool,
) -> int:
    """Write a capture: every request of one domain as it stood on the ring, its answer, and when.

    It is xenintro watch without printing. Without -w the file is named by domain and time. What is in it when
    this program is killed, or the disk is full, can be read.

    \b
    Examples:
      xenintro record --domid 1 -e cr3,msr:lstar
      xenintro record --name win10 -w /var/tmp/win10.pcapng.zst --rotate 100MB --keep 10
    """  # noqa: D301 - click takes the backspace for a mark
    return watch(
        Choice(
            domid=domid,
            name=name,
            events=",".join(events),
            count=count,
            duration=duration,
            policies=policy,
            enforce=mode == "enforce",
            deadline=deadline,
            keep=Keep(path=write, rotation=rotate or Rotation(), count=keep, force=force),
            printing=False,
            quiet=quiet,
        ),
        selection,
    )
