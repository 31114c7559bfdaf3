"""``xenintro policy list``: rules as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xenintro.policy import LIBRARY, load
from xenintro.policy.rules import RulePolicy
from xenintro.policy.spec import library
from xenintro.sinks import jsonl
from xenintro_cli import options
from xenintro_cli.output import terminal_width, write, write_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.policy import Policy

_COLUMNS = ("rule", "on", "answer", "level", "desc")


@click.command(name="list")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@options.output_format
def command(files: tuple[str, ...], output_format: str) -> None:
    """Print the rules of policies in the order they are asked; without a FILE, what comes with xenintro.

    \b
    Examples:
      xenintro policy list
      xenintro policy list rules.toml policy.py
    """  # noqa: D301 - click takes the backspace for a mark
    specs = files or tuple(f"{LIBRARY}{path.stem}" for path in library())
    rows = [row for spec in specs for row in _rows(spec, load(spec))]
    if output_format == "jsonl":
        write(b"".join(map(jsonl.line, rows)))
        return
    lines: list[str] = []
    widths = [max(len(column), *(len(row[column] or "-") for row in rows)) for column in _COLUMNS]
    for spec in specs:
        lines += [
            *([""] if lines else []),
            f"{spec}  {next(row['file'] for row in rows if row['from'] == spec)}",
        ]
        for row in [
            dict(zip(_COLUMNS, _COLUMNS, strict=True)),
            *(row for row in rows if row["from"] == spec),
        ]:
            cells = (f"{row[column] or '-':<{width}}" for column, width in zip(_COLUMNS, widths, strict=True))
            lines.append("  ".join(cells).rstrip()[: terminal_width()])
    write_lines(lines)


def _rows(spec: str, policy: Policy) -> Iterator[dict[str, Any]]:
    if isinstance(policy, RulePolicy):
        for rule in policy.all_rules:
            yield {
                "from": spec,
                "file": f"{policy.path}",
                "line": rule.line,
                "rule": rule.name,
                "on": rule.on,
                "when": rule.when.text if rule.when else None,
                "answer": rule.answer.name if rule.enabled else f"{rule.answer.name} (off)",
                "enabled": rule.enabled,
                "level": rule.level,
                "tags": rule.tags,
                "desc": rule.desc,
                "tests": len(rule.tests),
            }
        return
    for function in policy.rules:
        on = ",".join(sorted(function.reasons)) if function.reasons else "all"
        yield {"from": spec, "file": spec, "rule": function.name, "on": on} | dict.fromkeys(
            ("answer", "level", "desc")
        )
