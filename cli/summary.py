"""What is said when watching ends: the numbers, and what they cost the guest."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from xenintro.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenintro.session import Summary
    from xenintro_cli.style import Style

#: Columns that a list of rules may take.
_WIDTH = 100


def summary_lines(
    summary: Summary,
    *,
    name: str,
    nr_vcpus: int,
    unanswered: int,
    deadline: float,
    style: Style,
    rules: Sequence[str] = (),
) -> list[str]:
    """The summary block.

    Args:
        summary: of the session.
        name: the domain as people call it.
        nr_vcpus: its vCPUs, for the share of guest time.
        unanswered: requests without an answer when the ring was given up.
        deadline: seconds that a request waited at most.
        style: of the stream it goes to.
        rules: names of those that were asked.
    """

    def duration(nanoseconds: float) -> str:
        return format_ns(nanoseconds).replace("µ", style.micro)

    seconds = summary.duration_ns / 1e9
    events = grouped(summary.events)
    rate = grouped(round(summary.events / seconds)) if seconds else "0"
    took = duration(summary.duration_ns)
    shown = "" if summary.shown == summary.events else f" ({grouped(summary.shown)} shown)"
    lines = ["", f"{name}  {took}   {events} events{shown}   {rate}/s   {unanswered} unanswered"]
    if not summary.events:
        return lines
    lines += ["", f"  {'event':<20}{'count':>10}  {'pause p50':>10}{'p99':>10}{'max':>10}"]
    by_count = sorted(summary.pauses.items(), key=lambda item: -item[1].count)
    for reason, pauses in by_count:
        times = (pauses.percentile(50), pauses.percentile(99), pauses.max)
        cells = "".join(f"{duration(value):>10}" for value in times)
        lines.append(f"  {style.event(f'{reason:<20}', reason)}{grouped(pauses.count):>10}  {cells}")
    guest_ns = summary.duration_ns * nr_vcpus
    if guest_ns:  # slots from elsewhere have no times
        lines.append(
            f"  guest paused {duration(summary.paused_ns)} of {duration(guest_ns)} of vCPU time"
            f" ({100 * summary.paused_ns / guest_ns:.1f} %)"
        )
    if summary.deadline_missed:
        missed = f"{grouped(summary.deadline_missed)} requests waited for the deadline"
        lines.append(f"  {missed} ({duration(deadline * 1e9)}) and were allowed")
    lines += _rules(summary, rules)
    if summary.policy_errors:
        decisions = "decision" if summary.policy_errors == 1 else "decisions"
        whose = ", ".join(f"{rule} {grouped(count)}" for rule, count in summary.errors.most_common())
        lines.append(
            f"  {grouped(summary.policy_errors)} {decisions} failed{whose and f' ({whose})'}; "
            "those events were allowed"
        )
    return lines


def _rules(summary: Summary, asked: Sequence[str]) -> list[str]:
    """How often each rule had a say, and what it said."""
    counts = []
    for rule in dict.fromkeys((*asked, *summary.rules)):
        answers = [answer for one, answer in summary.said if one == rule and answer != "allow"]
        said = f" ({', '.join(answers)})" if answers else ""
        counts.append(f"{rule} {grouped(summary.rules[rule])}{said}")
    text = ", ".join(counts)
    return textwrap.wrap(
        text, _WIDTH, initial_indent="  rules: ", subsequent_indent=" " * 9, break_on_hyphens=False
    )


def grouped(number: int) -> str:
    """A number in groups of three digits."""
    return f"{number:,}".replace(",", " ")
