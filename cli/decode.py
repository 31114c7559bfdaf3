"""``xenintro decode``: a raw ring page, from a crash dump or a test."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

import click

from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, Interface, interface
from xenintro.codec import decode
from xenintro.ringpage import RingPage, Slot
from xenintro.sinks import jsonl
from xenintro.sinks.text import Lines
from xenintro.units import PAGE_SIZE
from xenintro_cli import options
from xenintro_cli.output import terminal_width, write, write_lines
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from xenintro.events import Event


@click.command(name="decode")
@click.argument("page", type=click.File("rb"))
@click.option(
    "--abi",
    "abi",
    required=True,
    metavar="ID",
    help=f"Interface of the page: {', '.join(INTERFACE_IDS)}.",
)
@click.option("--arch", type=click.Choice(ARCHITECTURES), default="x86_64", show_default=True)
@click.option("--all", "every", is_flag=True, help="Print every slot, answered and stale ones included.")
@options.output_format
@options.color
def command(page: IO[bytes], abi: str, arch: str, every: bool, output_format: str, color: str) -> None:
    """Print the unanswered requests on PAGE, one raw ring page of 4096 bytes ("-" reads stdin).

    \b
    Example:
      xenintro decode ring.bin --abi vm_event-7 --format jsonl
    """  # noqa: D301 - click takes the backspace for a mark
    layout = interface(abi, arch)
    # One byte more than a page tells a longer file without reading it.
    ring = RingPage(page.read(PAGE_SIZE + 1), layout)
    slots = ring.slots() if every else ring.requests()
    events = [(slot, decode(slot.raw, layout)) for slot in slots]
    _remark([event for _, event in events], layout)
    if output_format == "jsonl":
        records = (
            {"v": 1, "seq": seq, **_place(slot), **jsonl.event_record(event)}
            for seq, (slot, event) in enumerate(events)
        )
        write(b"".join(jsonl.line(record) for record in records))
        return
    lines = Lines(Style.of(sys.stdout, color), terminal_width())
    write_lines(
        [lines.header()]
        + [lines.line(event, time_ns=None, answer=None, pause_ns=None) for _, event in events]
    )


def _remark(events: list[Event], layout: Interface) -> None:
    """Say on stderr what people would otherwise wonder about."""
    if not events:
        click.echo("no unanswered requests; --all prints every slot", err=True)
    other = next((event.version for event in events if event.version != layout.version), None)
    if other is not None:
        click.echo(f"slots say interface version {other}, not {layout.id}: is --abi right?", err=True)


def _place(slot: Slot) -> dict[str, int]:
    place = {"slot": slot.slot}
    if slot.ring_index is not None:
        place["ring_index"] = slot.ring_index
    return place
