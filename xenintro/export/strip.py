"""Strips of time: events per second by kind, the share of the guest's time that was paused.

Drawn as SVG that needs no script; labels are text beside it, so that they stay legible at any width.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from xenintro.export.html import Html, duration, element, grouped, joined, percent
from xenintro.hues import hue_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xenintro.answered import Answered

MAX_COLUMNS = 256

#: Marks on the axis of time.
_TICKS = 4

_HEIGHT = 100


class Strip:
    """Counts events by kind and time; columns double in length when there are too many.

    Attributes:
        begun: time of the first event.
        bin_ns: a column's length.
    """

    def __init__(self) -> None:
        self.begun: int | None = None
        self.bin_ns = 1_000
        self._events: dict[int, Counter[str]] = {}
        self._paused: Counter[int] = Counter()

    def add(self, answered: Answered) -> None:
        """One request."""
        if self.begun is None:
            self.begun = answered.taken_ns
        at = max(answered.taken_ns - self.begun, 0)
        pause = max(answered.pause_ns or 0, 0)
        while (at + pause) // self.bin_ns >= MAX_COLUMNS:
            self._merge()
        self._events.setdefault(at // self.bin_ns, Counter())[answered.event.reason] += 1
        end = at + pause
        while at < end:
            column = at // self.bin_ns
            until = min(end, (column + 1) * self.bin_ns)
            self._paused[column] += until - at
            at = until

    @property
    def columns(self) -> int:
        """How many there are."""
        return max((*self._events, *self._paused), default=-1) + 1

    def events(self, column: int) -> Counter[str]:
        """Events by kind."""
        return self._events.get(column, Counter())

    def paused_ns(self, column: int) -> int:
        """How long vCPUs waited, in all."""
        return self._paused[column]

    def _merge(self) -> None:
        self.bin_ns *= 2
        events, self._events = self._events, {}
        for column, counts in events.items():
            self._events.setdefault(column // 2, Counter()).update(counts)
        paused, self._paused = self._paused, Counter()
        for column, paused_ns in paused.items():
            self._paused[column // 2] += paused_ns


def drawn(strip: Strip, reasons: Sequence[str], nr_vcpus: int) -> Html:
    """Both strips, with their key."""
    columns = range(strip.columns)
    per_second = 1e9 / strip.bin_ns
    highest = max(strip.events(column).total() for column in columns)
    hues = list(dict.fromkeys(hue_of(reason) for reason in reasons))
    bars: dict[str, list[str]] = {hue: [] for hue in hues}
    for column in columns:
        foot = float(_HEIGHT)
        counts: Counter[str] = Counter()
        for reason, count in strip.events(column).items():
            counts[hue_of(reason)] += count
        for hue in hues:
            if counts[hue]:
                height = counts[hue] / highest * _HEIGHT
                foot -= height
                bars[hue].append(_bar(column, foot, height))
    shares = [strip.paused_ns(column) / (strip.bin_ns * nr_vcpus) for column in columns]
    most = max(shares) or 1.0
    paused = [
        _bar(column, _HEIGHT * (1 - share / most), _HEIGHT * share / most)
        for column, share in enumerate(shares)
    ]
    said = [_said(strip, column, shares[column]) for column in columns]
    rate = f"{grouped(round(highest * per_second))}/s"
    return joined(
        (
            _figure("events per second", rate, [(hue, bars[hue]) for hue in hues], said, "high"),
            element("p", *(_key(reason) for reason in reasons), class_="key"),
            _figure("vCPU time paused", percent(most), [("alarm", paused)], said, "low"),
            _ticks(strip),
        )
    )


def _bar(column: int, y: float, height: float) -> str:
    return f"M{column} {y:.2f}h1v{height:.2f}h-1z"


def _figure(
    name: str, highest: str, bars: Iterable[tuple[str, list[str]]], said: Sequence[str], size: str
) -> Html:
    shapes = [element("path", d="".join(path), class_=hue) for hue, path in bars if path]
    hits = [
        element("rect", element("title", text), class_="hit", x=column, y=0, width=1, height=_HEIGHT)
        for column, text in enumerate(said)
    ]
    picture = element(
        "svg",
        *shapes,
        *hits,
        viewBox=f"0 0 {len(said)} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{name} over time, at most {highest}",
        class_=size,
    )
    axis = element(
        "div", element("span", highest), element("span", "0"), class_="axis number", aria_hidden="true"
    )
    return element("figure", element("figcaption", name), axis, picture, class_="strip")


def _ticks(strip: Strip) -> Html:
    length = strip.columns * strip.bin_ns
    marks = [
        element("span", "0" if not tick else duration(length * tick / _TICKS)) for tick in range(_TICKS + 1)
    ]
    return joined(
        (
            element("div", *marks, class_="ticks number", aria_hidden="true"),
            element("p", "time since the first event", class_="dim centred"),
        )
    )


def _said(strip: Strip, column: int, share: float) -> str:
    counts = strip.events(column)
    begin, end = duration(column * strip.bin_ns), duration((column + 1) * strip.bin_ns)
    kinds = ", ".join(f"{grouped(count)} {reason}" for reason, count in counts.most_common())
    return f"{begin} – {end}: {kinds or 'no events'}; {percent(share)} paused"


def _key(reason: str) -> Html:
    return element("span", element("i", class_=f"hue {hue_of(reason)}"), reason)
