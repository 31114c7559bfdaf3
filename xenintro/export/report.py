"""Report: one HTML file that says what was watched, what came of it, and what it cost the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from xenintro.export.digest import Digest
from xenintro.export.heatmap import SCRIPTS, heading, named
from xenintro.export.heatmap import section as heatmap
from xenintro.export.html import Html, duration, element, grouped, joined, page, percent, table
from xenintro.export.strip import drawn
from xenintro.hues import hue_of
from xenintro.sinks.jsonl import timestamp
from xenintro.sinks.text import address, what
from xenintro.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.reader import Capture
    from xenintro.export import Options

_EMPTY = element(
    "section",
    element("h2", "No events"),
    element(
        "p", "Nothing that was asked for happened while this was recorded, or its events were left out (-e)."
    ),
    element("p", "Whether the domain can be watched: ", element("code", "xenintro doctor --name NAME")),
)

#: Rows of a table of the busiest.
_ROWS = 20

#: Rows of the table of answers: rules are few, a damaged file may hold any.
_MOST_ANSWERS = 100


def export(info: CaptureInfo, events: Iterable[Answered], output: BinaryIO, options: Options) -> None:
    """Write the report."""
    digest = Digest()
    for answered in events:
        digest.add(answered)
    parts = _parts(digest, info) if digest.contents.events else [_EMPTY, _watched(digest, info)]
    parts.append(_gaps(digest, options.capture))
    name = named(info)
    body = joined((heading(f"Report on {name}", _facts(digest, info)), element("main", *parts)))
    output.write(page(f"{name}: report", body, digest.heat.data(), SCRIPTS))


def _parts(digest: Digest, info: CaptureInfo) -> list[Html]:
    """The sections about events."""
    parts = [
        *(_figures(digest, info), _watched(digest, info), _over_time(digest, info), _kinds(digest, info)),
        heatmap(digest.heat, element("h2", "Pages over time")),
    ]
    if digest.heat.unpacked():
        parts.append(_unpacked(digest))
    if digest.heat.accesses:
        parts.append(_pages(digest))
    return [*parts, _code(digest), _answers(digest), _cost(digest, info)]


def _facts(digest: Digest, info: CaptureInfo) -> str:
    contents = digest.contents
    parts = [f"{grouped(contents.events)} {_plural(contents.events, 'event')}"]
    if contents.events:
        parts += [f"{duration(contents.duration_ns)} from {_second(contents.first_ns)} UTC"]
    return " · ".join([*parts, f"Xen {info.xen or info.release}" if info.xen or info.release else info.abi])


def _figures(digest: Digest, info: CaptureInfo) -> Html:
    """The numbers that one looks for first."""
    contents, pauses = digest.contents, digest.pauses
    other = sum(
        count for said, count in contents.answers.items() if not said.answer.startswith("allow") or said.would
    )
    unpacked = len(digest.heat.unpacked())
    figures = [
        (f"{grouped(round(contents.rate(contents.events)))}/s", "events per second", False),
        (percent(_share(digest, info, contents.paused_ns)), "of the guest's time paused", False),
        (duration(pauses.percentile(50)) if pauses.count else "–", "pause, half are shorter", False),
        (duration(pauses.percentile(99)) if pauses.count else "–", "pause, 99 % are shorter", False),
        (grouped(other), "answers other than allow", other > 0),
        (
            grouped(contents.late + contents.unanswered),
            "late or not answered",
            contents.late + contents.unanswered > 0,
        ),
        (grouped(unpacked), "pages written, then executed", unpacked > 0),
    ]
    return element(
        "div",
        *(
            element(
                "div", element("b", value), element("span", label), class_="figure alarm" if bad else "figure"
            )
            for value, label, bad in figures
        ),
        class_="figures",
    )


def _watched(digest: Digest, info: CaptureInfo) -> Html:
    """What the capture says of itself."""
    facts = [part for name, value in _said_of_itself(digest, info) if value for part in _fact(name, value)]
    return element("section", element("h2", "What was watched"), element("dl", *facts, class_="facts"))


def _fact(name: str, value: object) -> tuple[Html, Html]:
    return element("dt", name), element("dd", value)


def _said_of_itself(digest: Digest, info: CaptureInfo) -> Iterator[tuple[str, object]]:
    domid = "" if info.domid is None else f" (domid {info.domid})"
    vcpus = digest.vcpus(info.nr_vcpus)
    yield (
        "domain",
        f"{named(info)}{domid}, {vcpus} {_plural(vcpus, 'vCPU')}{'' if info.nr_vcpus else ' seen'}",
    )
    yield "uuid", info.uuid and element("code", info.uuid)
    xen = info.xen or info.release
    yield "host", ", ".join(filter(None, (f"Xen {xen}" if xen else "", info.os)))
    yield "interface", f"{info.abi}, {info.arch}"
    yield "events", info.events and element("code", info.events)
    for path, digest_ in info.policies.items():
        yield "policy", joined((path, " ", element("code", f"sha256 {digest_[:16]}", class_="dim")))
    yield "mode", info.mode
    yield "deadline", None if info.deadline is None else format_ns(info.deadline * 1e9)
    yield "command", info.command and element("code", " ".join(info.command))
    yield "written by", info.version and f"xenintro {info.version}"


def _over_time(digest: Digest, info: CaptureInfo) -> Html:
    reasons = [reason for reason, _ in digest.contents.reasons.most_common()]
    strips = drawn(digest.strip, reasons, digest.vcpus(info.nr_vcpus))
    return element("section", element("h2", "Events over time"), strips)


def _kinds(digest: Digest, info: CaptureInfo) -> Html:
    contents = digest.contents
    rows = []
    for reason, count in contents.reasons.most_common():
        pauses = contents.pauses.get(reason)
        times = ["–"] * 4
        if pauses is not None:
            values = (pauses.percentile(50), pauses.percentile(99), pauses.max)
            times = [*map(duration, values), percent(_share(digest, info, pauses.total))]
        rows.append((_kind(reason), grouped(count), _rate(contents.rate(count)), *times))
    columns = ("count", "rate", "pause p50", "p99", "max", "of guest time")
    return element(
        "section",
        element("h2", "Events by kind"),
        table(
            [("event", ""), *((name, "number") for name in columns)],
            rows,
            "kinds by number of events",
        ),
    )


def _unpacked(digest: Digest) -> Html:
    begun, unpacked = digest.contents.first_ns, digest.heat.unpacked()
    rows = [
        (
            hex(gfn),
            duration((one.written or 0) - begun),
            duration((one.unpacked or 0) - begun),
            grouped(one.kinds[2]),
        )
        for gfn, one in unpacked[:_ROWS]
    ]
    names = ("first written", "first executed", "executions")
    columns = [("gfn", "address"), *((name, "number") for name in names)]
    whole = table(columns, rows, f"pages that were written and executed afterwards{_of(len(unpacked))}")
    return element("section", element("h2", "Written, then executed"), whole)


def _pages(digest: Digest) -> Html:
    begun, pages = digest.contents.first_ns, digest.heat.pages
    rows = [
        (
            hex(gfn),
            *map(grouped, (one.count, *one.kinds)),
            duration(one.first - begun),
            duration(one.last - begun),
        )
        for gfn, one in pages.items()[:_ROWS]
    ]
    names = ("accesses", "read", "write", "execute", "first", "last")
    columns = [("gfn", "address"), *((name, "number") for name in names)]
    caption = f"pages by accesses{_of(len(pages))}{_short(pages.short)}"
    return element("section", element("h2", "Busiest pages"), table(columns, rows, caption))


def _code(digest: Digest) -> Html:
    instructions = digest.instructions
    title = element("h2", "Busiest instructions")
    if not len(instructions):
        return element(
            "section", title, element("p", "No event of this capture says where the guest was.", class_="dim")
        )
    rows = [
        (address(where), grouped(one.count), duration(one.paused_ns), ", ".join(sorted(one.reasons)))
        for where, one in instructions.items()[:_ROWS]
    ]
    columns = [("address", "address"), ("events", "number"), ("paused", "number"), ("kinds", "list")]
    caption = f"instructions by events{_of(len(instructions))}{_short(instructions.short)}"
    return element("section", title, table(columns, rows, caption))


def _answers(digest: Digest) -> Html:
    answers = digest.contents.answers.most_common()
    rows = []
    for said, count in answers[:_MOST_ANSWERS]:
        plain = said.answer.startswith("allow") and said.would is None
        answer = said.answer if said.would is None else f"{said.answer}, would {said.would}"
        shown = element("span", answer, class_=None if plain else "alarm")
        rows.append((shown, grouped(count), said.rule or "–", said.level or "–"))
    columns = [("answer", ""), ("count", "number"), ("rule", ""), ("level", "")]
    caption = f"answers by rule{_of(len(answers), _MOST_ANSWERS)}"
    return element("section", element("h2", "Answers"), table(columns, rows, caption))


def _cost(digest: Digest, info: CaptureInfo) -> Html:
    contents = digest.contents
    vcpus = digest.vcpus(info.nr_vcpus)
    whole = contents.duration_ns * vcpus
    parts = [
        element("h2", "Cost to the guest"),
        element(
            "p",
            f"vCPUs waited {duration(contents.paused_ns)} of {duration(whole)} of vCPU time, ",
            element("b", percent(_share(digest, info, contents.paused_ns))),
            ".",
        ),
    ]
    if digest.pauses.count:
        parts += [_histogram(digest), _longest(digest)]
    return element("section", *parts)


def _histogram(digest: Digest) -> Html:
    """Pauses by powers of two."""
    limits = [1 << power for power in range(5, 64)]
    below = digest.pauses.below(limits)
    counts = [
        (limit, count - before) for limit, count, before in zip(limits, below, [0, *below], strict=False)
    ]
    used = [at for at, (_, count) in enumerate(counts) if count]
    shown = counts[used[0] : used[-1] + 1]
    most = max(count for _, count in shown)
    rows = [
        (
            f"{duration(limit // 2 if limit > 32 else 0)} – {duration(limit)}",
            grouped(count),
            percent(count / digest.pauses.count),
            element("meter", value=count, max=most, aria_hidden="true"),
        )
        for limit, count in shown
    ]
    columns = [("pause", "number"), ("requests", "number"), ("share", "number"), ("", "wide")]
    return table(columns, rows, "pauses by length")


def _longest(digest: Digest) -> Html:
    begun = digest.contents.first_ns
    rows = [
        (
            duration(one.pause_ns or 0),
            duration(one.taken_ns - begun),
            f"v{one.event.vcpu_id}",
            _kind(one.event.reason),
            what(one.event, "→"),
            one.answer + (" late" if one.late else ""),
        )
        for one in digest.longest()
    ]
    columns = [
        ("pause", "number"),
        ("time", "number"),
        ("vCPU", ""),
        ("event", ""),
        ("what", "address"),
        ("answer", ""),
    ]
    return table(columns, rows, "longest pauses")


def _gaps(digest: Digest, capture: Capture | None) -> Html:
    """What is not there, or came too late."""
    contents = digest.contents
    counts = {
        "not answered in the capture": contents.unanswered,
        "answered by the deadline thread, not by the policy": contents.late,
        "recorded and not there": 0 if capture is None else capture.missing,
        "that could not be written": 0 if capture is None or capture.totals is None else capture.totals.lost,
    }
    items = [
        element("li", f"{grouped(count)} {_plural(count, 'request')} {name}")
        for name, count in counts.items()
        if count
    ]
    if capture is not None:
        if capture.totals is None:
            items.append(element("li", "not closed by its writer: what came last may be missing"))
        if capture.damage is not None:
            items.append(
                element("li", f"damaged: {capture.damage.why}; what could be read was read", class_="alarm")
            )
    items += [
        element("li", f"nothing for {duration(silence.length_ns)} from {_second(silence.since_ns)} UTC")
        for silence in contents.silences
    ]
    what_is = (
        element("ul", *items) if items else element("p", "Nothing: every request is here, with its answer.")
    )
    return element("section", element("h2", "Late, unanswered, missing"), what_is)


def _share(digest: Digest, info: CaptureInfo, paused_ns: int) -> float:
    whole = digest.contents.duration_ns * digest.vcpus(info.nr_vcpus)
    return paused_ns / whole if whole else 0.0


def _second(ns: int) -> str:
    return timestamp(ns)[:19].replace("T", " ")


def _kind(reason: str) -> Html:
    return element("span", element("i", class_=f"hue {hue_of(reason)}"), reason, class_="kind")


def _rate(rate: float) -> str:
    return f"{grouped(round(rate))}/s" if rate >= 10 else f"{rate:.1f}/s"


def _of(count: int, rows: int = _ROWS) -> str:
    return f", the first {rows} of {grouped(count)}" if count > rows else ""


def _short(short: int) -> str:
    return f"; counts may be {grouped(short)} too low" if short else ""


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
