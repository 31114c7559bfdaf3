"""``xenintro record``: watch without printing, into a capture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xenintro.abi import ARCHITECTURES
from xenintro.capture.naming import Rotation
from xenintro.capture.raw import KINDS
from xenintro.errors import UsageError
from xenintro_cli import options
from xenintro_cli.import_raw import import_file
from xenintro_cli.recording import Keep
from xenintro_cli.watch import Choice, watch

if TYPE_CHECKING:
    from pathlib import Path


#: Options that a raw file has no use for.
_LIVE = (
    *("domid", "name", "events", "count", "duration", "policy", "mode", "deadline"),
    *("rotate", "keep", "selection"),
)


#: Options of a raw file alone.
_RAW = ("abi", "arch", "raw")


@click.command(name="record")
@options.domain
@click.option(
    "--from-raw", metavar="FILE", help="Take raw slots or ring pages instead of a domain; - is stdin."
)
@click.option("--abi", metavar="ID", help="With --from-raw: their interface, as in decode.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), default="x86_64", show_default=True)
@click.option(
    "--raw", type=click.Choice(KINDS), help="With --from-raw: what the file holds; else its beginning tells."
)
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
    from_raw: str | None,
    abi: str | None,
    arch: str,
    raw: str | None,
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
      xenintro record --from-raw ring.bin --abi vm_event-7 -w ring.pcapng
      xenintro record --name win10 -w /var/tmp/win10.pcapng.zst --rotate 100MB --keep 10
    """  # noqa: D301 - click takes the backspace for a mark
    if from_raw is not None:
        options.refuse(_LIVE, "--from-raw reads a file", why="what is in it is taken as it is")
        return import_file(from_raw, write, abi=abi, arch=arch, kind=raw, force=force, quiet=quiet)
    if any(map(options.is_given, _RAW)):
        raise UsageError("nothing raw is imported", why="--abi, --arch and --raw are for --from-raw FILE")
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
