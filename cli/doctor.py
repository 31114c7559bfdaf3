"""``xenintro doctor``: can this host, or this domain, be watched, and if not, what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import msgspec

from xenintro.errors import NotSupportedError
from xenintro.sinks import jsonl
from xenintro_cli import options
from xenintro_cli.host import libraries
from xenintro_cli.output import write, write_lines
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from xenintro.xen.probe import Finding


@click.command(name="doctor")
@click.option("-d", "--domid", type=int, help="Look at this domain too.")
@options.output_format
@options.color
@options.xen
def command(domid: int | None, output_format: str, color: str, selection: str) -> int:
    """Check this host, or one domain, and say what to fix. Nothing is changed.

    Exits 0 if nothing keeps it from being watched, else 6.
    """
    from xenintro.xen.probe import examine

    with libraries(selection) as directory:
        findings = list(examine(directory, domid))
    if output_format == "jsonl":
        write(b"".join(jsonl.line({"v": 1} | msgspec.structs.asdict(finding)) for finding in findings))
    else:
        write_lines(_report(findings, domid, Style.of(sys.stdout, color)))
    failed = any(finding.level == "error" for finding in findings)
    return NotSupportedError.exit_code if failed else 0


def _report(findings: list[Finding], domid: int | None, style: Style) -> list[str]:
    lines = []
    for section, title in (("host", "host"), ("domain", f"domain {domid}")):
        chosen = [finding for finding in findings if finding.section == section]
        if chosen:
            lines.append(title)
        for finding in chosen:
            level = style.level(f"{finding.level:<5}", finding.level)
            lines.append(f"  {level}  {finding.what:<22}  {finding.detail}".rstrip())
            if finding.fix:
                lines.append(f"         {'':<22}  {finding.fix}")
    counts = {level: sum(f.level == level for f in findings) for level in ("ok", "warn", "error")}
    said = [f"{counts['ok']} ok"]
    for level, word in (("warn", "warning"), ("error", "error")):
        said.append(f"{counts[level]} {word}{'' if counts[level] == 1 else 's'}")
    lines.append(", ".join(said))
    return lines
