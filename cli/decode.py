"""``xenintro decode``: a raw ring page, from a crash dump or a test."""

from __future__ import annotations

import sys
from typing import IO

import click
from xenintro_cli import options
from xenintro_cli.output import terminal_width, write, write_lines
from xenintro_cli.style import Style

from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, interface
from xenintro.codec import decode
from xenintro.ringpage import RingPage, Slot
from xenintro.sinks import jsonl
from xenintro.sinks.text import Lines


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
    r"""Print the unanswered requests on PAGE, one raw ring page of 4096 bytes ("-" reads stdin).

    \b
    Example:
      xenintro decode ring.bin --abi vm_event-7 --format jsonl
    """
    layout = interface(abi, arch)
    ring = RingPage(page.read(), layout)
    slots = ring.slots() if every else ring.requests()
    events = [(slot, decode(slot.raw, layout)) for slot in slots]
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


def _place(slot: Slot) -> dict[str, int]:
    place = {"slot": slot.slot}
    if slot.ring_index is not None:
        place["ring_index"] = slot.ring_index
    return place
