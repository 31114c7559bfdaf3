"""``xenintro policy fields``: the words of filters, rules and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from xenintro.abi import INTERFACE_IDS
from xenintro.errors import UsageError
from xenintro.events import EVENT_TYPES
from xenintro.fields import FIELDS, Field, interfaces_of, interfaces_with
from xenintro.policy.language.functions import FUNCTIONS
from xenintro.policy.language.scope import SYMBOLS, nearest
from xenintro_cli.output import write, write_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Groups of fields: where they come from, and what is said of them.
_GROUPS = {
    "event": "every event",
    "registers": "registers, from mem_event-rfc3 on (Arm: vm_event-2)",
    "guest": "the domain",
    "answered": "what became of the event, in filters and outputs",
    "output": "in outputs only",
}


@click.command(name="fields")
@click.argument("event", required=False)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["human", "json"]),
    default="human",
    show_default=True,
    help="Lines for people, or one JSON document.",
)
def command(event: str | None, output_format: str) -> None:
    """List the fields that filters, rules and --format fields know: of every event, or of those of one EVENT.

    A field of a payload is written with its event's name in front, or alone where it is clear: in a rule for
    that event, and in a filter, where events without it do not have it. So are registers.

    \b
    Examples:
      xenintro policy fields mem_access
      xenintro policy fields --format json
    """  # noqa: D301 - click takes the backspace for a mark
    if event is not None and event not in EVENT_TYPES:
        close = nearest(event, EVENT_TYPES)
        raise UsageError(
            f"unknown event {event!r}",
            why=f"known are {', '.join(EVENT_TYPES)}",
            hint=f"did you mean {close}?" if close else "",
        )
    fields = [one for one in FIELDS.values() if event is None or one.reason in (None, event)]
    if output_format == "json":
        write(msgspec.json.format(msgspec.json.encode(_document(fields)), indent=1) + b"\n")
        return
    write_lines(list(_lines(fields)))


def _lines(fields: Iterable[Field]) -> Iterator[str]:
    groups: dict[str, list[Field]] = {}
    for field in fields:
        groups.setdefault(field.reason or _GROUPS[field.of], []).append(field)
    for title, members in sorted(groups.items(), key=lambda group: group[0] in _GROUPS.values()):
        yield f"{title}:"
        width = max(len(field.name) for field in members)
        for field in members:
            yield f"  {field.name:<{width}}  {_kind(field):<6}  {field.meaning}{_where(field)}"
        yield ""
    yield "functions:"
    for function in FUNCTIONS.values():
        yield f"  {function.usage:<27}  {function.meaning}"
    yield ""
    yield "names for numbers:"
    yield from _wrapped(SYMBOLS)


def _kind(field: Field) -> str:
    if field.kind != "int":
        return field.kind
    return "i64" if field.bits == 63 else f"u{field.bits}"


def _where(field: Field) -> str:
    """Which interfaces have it, where not all that could do."""
    having = interfaces_of(field.name)
    around = interfaces_of("regs.rip") if field.of == "registers" else interfaces_with(field.reason)
    if having == around or field.name in _ARM:
        return ""
    first, last = INTERFACE_IDS.index(having[0]), INTERFACE_IDS.index(having[-1])
    if having != INTERFACE_IDS[first : last + 1]:
        return " (not in all interfaces)"
    return f" ({having[0]} on)" if having[-1] == around[-1] else f" ({having[0]} to {having[-1]})"


_ARM = {"regs.ttbr0", "regs.ttbr1", "regs.ttbcr", "regs.pc", "regs.cpsr"}


def _wrapped(words: Iterable[str], width: int = 76) -> Iterator[str]:
    line = ""
    for word in words:
        if len(line) + len(word) > width:
            yield f"  {line.rstrip()}"
            line = ""
        line += f"{word} "
    yield f"  {line.rstrip()}"


def _document(fields: Iterable[Field]) -> dict[str, Any]:
    return {
        "v": 1,
        "fields": [_record(field) for field in fields],
        "functions": [
            {"name": name, "usage": function.usage, "meaning": function.meaning}
            for name, function in FUNCTIONS.items()
        ],
        "numbers": {name: f"{number:#x}" for name, number in SYMBOLS.items()},
    }


def _record(field: Field) -> dict[str, Any]:
    record = {
        "name": field.name,
        "plain": field.plain,
        "kind": field.kind,
        "bits": field.bits,
        "unit": field.unit,
        "values": field.values,
        "event": field.reason,
        "in": [
            *(["rules"] if field.of not in ("answered", "output") else []),
            *(["filters"] if field.of != "output" else []),
            "outputs",
        ],
        "interfaces": interfaces_of(field.name),
        "meaning": field.meaning,
    }
    return {key: value for key, value in record.items() if value}
