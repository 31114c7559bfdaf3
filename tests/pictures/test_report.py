"""The report: numbers that are right, a page that is sound, and text of a guest that stays text."""

from __future__ import annotations

import html.parser
import io
import re
from importlib import resources
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures.captures import INFO, UNHURRIED, Named, R, access, answered, unpacker
from xenintro.capture.info import CaptureInfo
from xenintro.events import EVENT_TYPES
from xenintro.export import Options
from xenintro.export.html import Html, element, escaped, table
from xenintro.export.report import export
from xenintro.hues import hue_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.pictures.browser import Browser
    from xenintro.answered import Answered

pytestmark = pytest.mark.xdist_group("browser")

NASTY = "</script></title><img src=x onerror=\"document.title='owned'\">' & \u202e\x1b[31m\x00"


def report(events: Iterable[Answered], info: CaptureInfo = INFO) -> str:
    output = io.BytesIO()
    export(info, events, output, Options())
    return output.getvalue().decode()


class Outline(html.parser.HTMLParser):
    """The elements of a page in their order; every one closed."""

    EMPTY = frozenset({"meta", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] not in (["script"], ["style"]):
            self.text += data


def nasty(text: str) -> tuple[CaptureInfo, list[Answered]]:
    info = CaptureInfo(
        **dict.fromkeys(("abi", "arch", "xen", "domain", "uuid", "events", "mode", "version", "os"), text),
        policies={text: text},
        command=(text,),
    )
    rule = Named(text, text, (text,), text)
    return info, [
        access(0, 1, R)._replace(answer=text, rule=rule, would=text),
        answered("cpuid", 5, rule=rule),
    ]


#: The elements of a page about a harmless guest.
PLAIN = Outline(report(nasty("x")[1], nasty("x")[0])).elements


def test_numbers() -> None:
    text = Outline(report(unpacker(4_000))).text
    assert "4\u202f000 events" in text
    assert "667/s" in text
    assert re.search(r"vCPUs waited \d+\u202fms of 12.0\u202fs of vCPU time, [\d.]+\u202f%\.", text)
    assert "freeze-lstar" in text
    assert "the first 20 of" in text


@pytest.mark.parametrize("events", [[], [answered("cpuid", 0)], [answered("guest_request", 0, paused=False)]])
def test_captures_with_next_to_nothing(events: list[Answered]) -> None:
    page = Outline(report(events, CaptureInfo(abi="vm_event-7")))
    assert "Report on an unnamed domain" in page.text
    assert f"{len(events)} event" in page.text


def test_what_is_missing_is_said() -> None:
    text = Outline(
        report([answered("cpuid", 0, response=None), answered("cpuid", 9, vcpu=1, late=True)])
    ).text
    assert "1 request not answered in the capture" in text
    assert "1 request answered by the deadline thread, not by the policy" in text
    assert "Nothing: every request is here" in Outline(report([answered("cpuid", 0)])).text


@settings(UNHURRIED, max_examples=25)
@given(st.text(min_size=1, max_size=20))
def test_whatever_a_file_says_the_page_keeps_its_shape(text: str) -> None:
    assert Outline(report(nasty(text)[1], nasty(text)[0])).elements == PLAIN


def test_nothing_of_a_guest_is_run(window: Browser, tmp_path: Path) -> None:
    info, events = nasty(NASTY)
    page = tmp_path / "report.html"
    page.write_text(report(events, info))
    assert "\x1b" not in page.read_text()
    window.open(page)
    window.run("heat.canvas.focus()")
    window.key("ArrowRight")
    window.key("Enter", windowsVirtualKeyCode=13)
    assert NASTY[:20] in window.run("return document.querySelector('.events').textContent")
    assert window.run("return document.images.length") == 0
    assert window.run("return document.title").startswith("</script></title><img")
    assert window.console() == []


def test_the_policy_of_the_page_stops_what_would_get_through(window: Browser, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    inside = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    page.write_text(report(unpacker(50)).replace("<main>", f"<main>{inside}"))
    window.open(page)
    assert len(window.console()) >= 3  # the picture, its handler, the script
    assert window.run("return document.title") == "win10: report"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_in_a_browser(window: Browser, tmp_path: Path, theme: str, width: int) -> None:
    page = tmp_path / "report.html"
    page.write_text(report(unpacker(2_000)))
    window.open(page, width=width, theme=theme)
    assert window.run("return document.documentElement.scrollWidth") == width
    assert window.run("return heat.cells.length") > 100
    assert " paused" in window.run("return document.querySelector('svg title').textContent")
    assert window.run(CONTRAST) == []
    assert window.console() == []


#: Texts with less contrast to what is behind them than WCAG AA asks for (4.5).
CONTRAST = """
const channels = (text) => text.match(/[\\d.]+/g).map(Number);
const luminance = (text) => {
  const [r, g, b] = channels(text).map((one) => one / 255).map((one) =>
    one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (one) => {
  for (let at = one; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (channels(colour)[3] !== 0) return colour;
  }
};
return [...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && [...one.childNodes].some((node) => node.data?.trim()))
  .map((one) => {
    const [a, b] = [luminance(getComputedStyle(one).color), luminance(ground(one))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 80)];
  })
  .filter(([ratio]) => ratio < 4.5);
"""


def test_text_is_escaped_once() -> None:
    assert escaped("<&\"'>") == "&lt;&amp;&quot;&#x27;&gt;"
    assert escaped(Html("<b>")) == "<b>"
    assert element("a", "<", href='"', class_=None) == '<a href="&quot;">&lt;</a>'
    assert "<td>&lt;</td>" in table([("x", "")], [["<"]], "")
    assert escaped("a\nb\u202e\ud800\u202f") == "a\ufffdb\ufffd?\u202f"


def test_every_kind_of_event_has_a_hue_in_both_themes() -> None:
    style = (resources.files("xenintro.export") / "page" / "style.css").read_text()
    for reason in EVENT_TYPES:
        assert re.search(rf"--{hue_of(reason)}: light-dark\(", style)
        assert f".{hue_of(reason)} {{ color: var(--{hue_of(reason)}); }}" in style
