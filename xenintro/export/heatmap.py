"""Heatmap: pages by time in one HTML file, with zoom and the events of every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from xenintro.export.heat import KINDS, Heat
from xenintro.export.html import Html, duration, element, escaped, grouped, joined, page
from xenintro.sinks.jsonl import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.export import Options

#: What runs in a page with a heatmap.
SCRIPTS = ("page.js", "plot.js", "heat.js")

_HELP = (
    "Drag to move, + and − to zoom (after a click the wheel does), 0 for everything. Arrow keys go from cell "
    "to cell, Enter or a click lists a cell's events. Only pages that were touched have a row; a dotted line "
    "is a gap."
)
_COLUMNS = (
    ("time", "number"),
    *((name, "") for name in ("vCPU", "event", "instruction", "answer")),
    ("pause", "number"),
)


def export(info: CaptureInfo, events: Iterable[Answered], output: BinaryIO, options: Options) -> None:
    """Write the page."""
    heat = Heat()
    count, begun, ended = 0, None, 0
    for answered in events:
        heat.add(answered)
        count += 1
        ended = answered.taken_ns
        if begun is None:
            begun = ended
    name = named(info)
    facts = [f"{grouped(count)} events"]
    if begun is not None:
        facts += [f"{duration(ended - begun)} from {timestamp(begun)[:19].replace('T', ' ')} UTC", info.abi]
    body = joined((heading(f"Pages of {name} over time", " · ".join(facts)), element("main", section(heat))))
    output.write(page(f"{name}: pages over time", body, heat.data(), SCRIPTS))


def named(info: CaptureInfo) -> str:
    """What the domain is called."""
    if info.domain is not None:
        return info.domain
    return "an unnamed domain" if info.domid is None else f"domain {info.domid}"


def heading(title: str, facts: str) -> Html:
    """The top of a page."""
    words = element("div", element("h1", title), element("p", facts, class_="dim"))
    return element("header", words, element("button", "Dark theme", id="theme", type="button", hidden=""))


def section(heat: Heat, title: Html = Html("")) -> Html:  # noqa: B008 - a text cannot change
    """The heatmap without its data, or what to do to get one."""
    has_code = heat.has_code
    if not heat.accesses and not has_code:
        return element("section", title, _empty("This capture has no event with a page or an instruction."))
    parts = [title, _remarks(heat)]
    if not heat.accesses:
        parts.append(
            _empty("No page access in this capture: what follows are the pages of the code that ran.")
        )
    parts += [_controls(heat, has_code), _plot(), _events()]
    parts.append(element("noscript", element("p", "The heatmap needs JavaScript.", class_="empty")))
    return element("section", *parts, class_="heat")


def _remarks(heat: Heat) -> Html:
    unpacked = len(heat.unpacked())
    if not unpacked:
        return Html("")
    were = "page was" if unpacked == 1 else "pages were"
    short = ", of those that were kept" if heat.pages.short else ""
    return element(
        "p",
        element("b", f"{grouped(unpacked)} {were} written, then executed"),
        f"{short}: marked beside the rows.",
    )


def _empty(what: str) -> Html:
    command = element("code", "xenintro record --name NAME -e mem:rwx@0x1000-0x1fff")
    ask = element("p", "To see accesses, name the guest pages to watch: ", command)
    return element("div", element("p", what), ask, class_="empty")


def _controls(heat: Heat, has_code: bool) -> Html:
    both = bool(heat.accesses) and has_code
    first = "gfn" if heat.accesses else "code"
    names = {"gfn": "accessed (gfn)", "code": "of code (instruction)"}
    choices = [
        element(
            "label",
            _input("radio", "rows", value=name, checked="" if name == first else None),
            names[name],
            hidden=None if both or name == first else "",
        )
        for name in names
    ]
    rows = element("fieldset", element("legend", "Pages"), *choices, hidden=None if both else "")
    kinds = element(
        "fieldset",
        element("legend", "Show"),
        *(element("label", _input("checkbox", "kind", checked=""), _ramp(kind), kind) for kind in KINDS),
        data_for="gfn",
    )
    only = element(
        "label",
        _input("checkbox", "marked", disabled=None if heat.unpacked() else ""),
        "only written, then executed",
        data_for="gfn",
    )
    scales = [
        element(
            "span",
            *(() if name == "gfn" else (_ramp("event"), " ")),
            element("span", class_="scale"),
            class_="dim",
            data_for=name,
        )
        for name in names
    ]
    buttons = [
        element("button", text, type="button", data_act=act, aria_label=label)
        for text, act, label in (
            ("+", "in", "zoom in"),
            ("−", "out", "zoom out"),
            ("All", "all", "show everything"),
        )
    ]
    return element(
        "div", rows, kinds, only, *scales, element("div", *buttons, class_="buttons"), class_="bar"
    )


def _plot() -> Html:
    canvas = element(
        "canvas",
        tabindex="0",
        role="application",
        aria_label=f"Heatmap of pages by time. {_HELP}",
    )
    return joined(
        (
            element("div", canvas, element("div", class_="tip", role="status"), class_="plot"),
            element("p", _HELP, class_="note screen"),
        )
    )


def _events() -> Html:
    head = element("tr", *(element("th", name, scope="col", class_=kind or None) for name, kind in _COLUMNS))
    whole = element("table", element("thead", head), element("tbody"))
    close = element("button", "Close", type="button", data_act="close")
    return element(
        "div",
        element("header", element("h3"), close),
        element("p", element("span", class_="count"), " ", element("code"), class_="dim"),
        element("div", whole, class_="scroll", tabindex="0", role="region", aria_label="events of the cell"),
        class_="events",
        hidden="",
    )


def _ramp(kind: str) -> Html:
    return element("span", class_=f"ramp {kind}", aria_hidden="true")


def _input(kind: str, name: str, **more: str | None) -> Html:
    attributes = "".join(f' {key}="{escaped(value)}"' for key, value in more.items() if value is not None)
    return Html(f'<input type="{kind}" name="{name}"{attributes}>')
