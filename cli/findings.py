"""What ``doctor`` found, as lines for people."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenintro.xen.probe import Finding
    from xenintro_cli.style import Style

#: Terminals narrower than this get the detail below, not beside, what was looked at.
_NARROW = 72
_LEVEL = 5
_WHAT = 24
_INDENT = " " * (2 + _LEVEL + 2)


def report(findings: list[Finding], domain: str, style: Style, width: int | None) -> list[str]:
    """Lines by section, then how many of each level.

    Args:
        findings: in their order.
        domain: what the section about a domain is called.
        style: colour and characters.
        width: of the terminal; None for no limit.
    """
    titles = {"host": "host", "domain": domain, "process": "this process"}
    beside = width is None or width >= _NARROW
    column = min(max((len(finding.what) for finding in findings), default=0), _WHAT)
    lines = []
    for section in dict.fromkeys(finding.section for finding in findings):
        lines.append(titles[section])
        for finding in findings:
            if finding.section == section:
                lines += _wide(finding, column, style, width) if beside else _narrow(finding, style, width)
    return [*lines, *_wrapped(_counts(findings), "", width)]


def _wide(finding: Finding, column: int, style: Style, width: int | None) -> list[str]:
    indent = f"{_INDENT}{'':<{column}}  "
    texts = [*_wrapped(finding.detail, indent, width), *_wrapped(finding.fix, indent, width)]
    head = _head(finding, style)
    if len(finding.what) > column or not texts:
        return [head, *texts]
    return [f"{head}{'':<{column - len(finding.what)}}{texts[0][len(indent) - 2 :]}", *texts[1:]]


def _narrow(finding: Finding, style: Style, width: int | None) -> list[str]:
    texts = [*_wrapped(finding.detail, _INDENT, width), *_wrapped(finding.fix, _INDENT, width)]
    return [_head(finding, style), *texts]


def _head(finding: Finding, style: Style) -> str:
    return f"  {style.level(f'{finding.level:<{_LEVEL}}', finding.level)}  {finding.what}"


def _wrapped(text: str, indent: str, width: int | None) -> Iterable[str]:
    """A text in the room that there is; a word that is longer than it, for instance a path, stays whole."""
    if width is None:
        return [indent + text] if text else []
    return textwrap.wrap(
        text,
        max(width, len(indent) + 8),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _counts(findings: list[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warn", "error")}
    said = [f"{counts['ok']} ok"]
    for level, word in (("warn", "warning"), ("error", "error")):
        said.append(f"{counts[level]} {word}{'' if counts[level] == 1 else 's'}")
    return ", ".join(said)
