"""``xenintro doctor``: can this host, or this domain, be watched, and if not, what to do."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click
import msgspec

from xenintro.errors import NotSupportedError
from xenintro.sinks import jsonl
from xenintro.traps import parse_traps
from xenintro_cli import options
from xenintro_cli.findings import report
from xenintro_cli.host import check_one_domain, find_domain, libraries
from xenintro_cli.output import say, terminal_width, write, write_lines
from xenintro_cli.style import Style


@click.command(name="doctor")
@options.domain
@click.option(
    "-e",
    "--events",
    multiple=True,
    metavar="LIST",
    help="Say whether these can be trapped, as watch takes them.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Write all of it, versions and logs to this tar.gz file, for a bug report.",
)
@click.option("--force", is_flag=True, help="Let --bundle overwrite a file.")
@options.output_format
@options.color
@options.xen
def command(
    domid: int | None,
    name: str | None,
    events: tuple[str, ...],
    bundle: Path | None,
    force: bool,
    output_format: str,
    color: str,
    selection: str,
) -> int:
    """Check this host, or one domain, and say what to fix. Nothing is changed.

    Exits 0 if nothing keeps it from being watched, else 6.
    """
    chosen = domid is not None or name is not None
    if chosen or events:  # what can be trapped depends on the domain
        check_one_domain(domid, name)
    from xenintro.xen.probe import examine

    traps = parse_traps(",".join(events)) if events else ()
    choose = partial(find_domain, domid=domid, name=name) if chosen else None
    with libraries(selection) as directory:
        findings = list(examine(directory, choose, traps))
        if output_format == "jsonl":
            write(b"".join(jsonl.line({"v": 1} | msgspec.structs.asdict(finding)) for finding in findings))
        else:
            title = f"domain {name if domid is None else domid}"
            write_lines(report(findings, title, Style.of(sys.stdout, color), terminal_width()))
        if bundle is not None:
            from xenintro_cli.bundle import write_bundle

            contents = ", ".join(write_bundle(bundle, directory, findings, force=force))
            say(f"wrote {bundle}: {contents}; no guest memory, no registers", color=False)
    failed = any(finding.level == "error" for finding in findings)
    return NotSupportedError.exit_code if failed else 0
