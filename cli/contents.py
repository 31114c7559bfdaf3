"""What ``inspect`` says of a capture: for people, and for programs."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from xenintro.sinks.jsonl import timestamp
from xenintro.units import format_ns, format_size
from xenintro_cli.summary import grouped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xenintro.capture.contents import Contents, Said
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.reader import Capture
    from xenintro_cli.style import Style

_PERCENTILES = {"p50": 50, "p99": 99}


def content_record(capture: Capture, contents: Contents, file: str) -> dict[str, Any]:
    """One object, keys only ever added; durations are nanoseconds, sizes bytes, rates events per second."""
    totals = capture.totals
    return {
        "v": 1,
        "file": file,
        "size": capture.size,
        "compression": capture.compression,
        "info": msgspec.to_builtins(capture.info),
        "events": contents.events,
        "first": timestamp(contents.first_ns) if contents.events else None,
        "last": timestamp(contents.last_ns) if contents.events else None,
        "duration_ns": contents.duration_ns,
        "rate": round(contents.rate(contents.events), 1),
        "busiest_second": contents.busiest,
        "paused_ns": contents.paused_ns,
        "reasons": {
            reason: {
                "count": count,
                "rate": round(contents.rate(count), 1),
                "pause_ns": _pauses(contents, reason),
            }
            for reason, count in contents.reasons.most_common()
        },
        "answers": [{**said._asdict(), "count": count} for said, count in contents.answers.most_common()],
        "unanswered": contents.unanswered,
        "late": contents.late,
        "missing": capture.missing,
        "lost": None if totals is None else totals.lost,
        "closed": totals is not None,
        "silences": [
            {"since": timestamp(silence.since_ns), "length_ns": silence.length_ns}
            for silence in contents.silences
        ],
        "reads": contents.reads,
        "read_bytes": contents.read_bytes,
        "damage": None if capture.damage is None else capture.damage.why,
    }


def _pauses(contents: Contents, reason: str) -> dict[str, int] | None:
    pauses = contents.pauses.get(reason)
    if pauses is None:
        return None
    numbers = {name: pauses.percentile(percent) for name, percent in _PERCENTILES.items()}
    return {**numbers, "max": pauses.max, "total": pauses.total}


def content_lines(capture: Capture, contents: Contents, file: str, style: Style) -> list[str]:
    """The same, aligned."""
    size = "" if capture.size is None else f"  {format_size(capture.size)}"
    compression = "" if capture.compression is None else f", {capture.compression}"
    lines = [f"{file}{size}{compression}", ""]
    lines += (f"  {name:<11}{printable(text)}" for name, text in _facts(capture.info, contents) if text)
    if contents.events:
        lines += ["", *_event_lines(contents, capture.info.nr_vcpus, style)]
        lines += ["", *_answer_lines(contents, style)]
    else:
        lines += ["", "  no events"]
    return [*lines, "", *(f"  {line}" for line in _gaps(capture, contents, style))]


def _facts(info: CaptureInfo, contents: Contents) -> Iterator[tuple[str, str]]:
    """Name and text; an empty text is not known."""
    vcpus = "" if info.nr_vcpus is None else f", {info.nr_vcpus} vCPU{'s' if info.nr_vcpus != 1 else ''}"
    domid = "" if info.domid is None else f" (domid {info.domid})"
    yield "domain", f"{info.domain or 'unknown'}{domid}{vcpus}"
    yield "uuid", info.uuid or ""
    yield "host", ", ".join(filter(None, (f"Xen {info.xen or info.release or 'unknown'}", info.os)))
    yield "interface", f"{info.abi}, {info.arch}"
    if contents.events:
        begin, end = (_second(ns) for ns in (contents.first_ns, contents.last_ns))
        yield "recorded", f"{begin} to {end} UTC" + (f", by xenintro {info.version}" if info.version else "")
    yield "traps", info.events
    for path, digest in info.policies.items():
        yield "policy", f"{path}  sha256 {digest[:16]}"
    if info.mode is not None:
        yield "mode", info.mode
    yield "deadline", "" if info.deadline is None else format_ns(info.deadline * 1e9)
    yield "command", " ".join(info.command)


def printable(text: str) -> str:
    """Text of a file, which may have been made to play with the terminal."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _event_lines(contents: Contents, nr_vcpus: int | None, style: Style) -> Iterator[str]:
    took, events = contents.duration_ns, contents.events
    rate = (
        f"   {_rate(contents.rate(events))}, {grouped(contents.busiest)} in the busiest second"
        if took
        else ""
    )
    yield f"  {grouped(events)} event{'s' if events != 1 else ''} in {duration(took, style)}{rate}"
    yield ""
    yield f"  {'event':<20}{'count':>10}{'rate':>10}  {'pause p50':>9}{'p99':>8}{'max':>8}"
    for reason, count in contents.reasons.most_common():
        pauses = contents.pauses.get(reason)
        times: Sequence[str] = ("-", "-", "-")
        if pauses is not None:
            values = (*(pauses.percentile(percent) for percent in _PERCENTILES.values()), pauses.max)
            times = [duration(value, style) for value in values]
        cells = "".join(f"{text:>{width}}" for text, width in zip(times, (9, 8, 8), strict=True))
        own = _rate(contents.rate(count)) if took else "-"
        yield f"  {style.event(f'{reason:<20}', reason)}{grouped(count):>10}{own:>10}  {cells}"
    paused = f"  guest paused {duration(contents.paused_ns, style)}"
    if took and nr_vcpus is not None and nr_vcpus > 0:
        whole = took * nr_vcpus
        paused += f" of {duration(whole, style)} of vCPU time ({100 * contents.paused_ns / whole:.1f} %)"
    yield paused


def _answer_lines(contents: Contents, style: Style) -> Iterator[str]:
    yield f"  {'answer':<20}{'count':>10}  rule"
    for said, count in contents.answers.most_common():
        text = f"{answer_text(said):<20}"
        shown = text if said.answer.startswith("allow") and said.would is None else style.alarm(text)
        rule = "" if said.rule is None else f"  {said.rule}" + (f"  {said.level}" if said.level else "")
        yield f"  {shown}{grouped(count):>10}{printable(rule)}"


def _gaps(capture: Capture, contents: Contents, style: Style) -> Iterator[str]:
    """What is not there."""
    counts = {"unanswered": contents.unanswered, "late": contents.late, "missing": capture.missing}
    yield ", ".join(f"{grouped(count)} {name}" for name, count in counts.items())
    if capture.totals is None:
        yield "not closed by its writer: what came last may be missing"
    elif capture.totals.lost:
        yield f"{grouped(capture.totals.lost)} more could not be written"
    for silence in contents.silences:
        yield f"silence of {duration(silence.length_ns, style)} from {_second(silence.since_ns)} UTC"
    if contents.reads:
        size, times = format_size(contents.read_bytes), grouped(contents.reads)
        yield f"{size} of guest memory in {times} reads of a policy"


def answer_text(said: Said) -> str:
    """An answer as people read it."""
    return printable(said.answer if said.would is None else f"{said.answer}, would {said.would}")


def duration(nanoseconds: float, style: Style) -> str:
    """A duration in the characters of the stream."""
    return format_ns(nanoseconds).replace("µ", style.micro)


def _rate(rate: float) -> str:
    return f"{grouped(round(rate))}/s" if rate >= 10 else f"{rate:.1f}/s"


def _second(ns: int) -> str:
    return f"{datetime.datetime.fromtimestamp(ns // 1_000_000_000, datetime.UTC):%Y-%m-%d %H:%M:%S}"
