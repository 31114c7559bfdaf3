"""One HTML file that needs nothing else: no network, no other file, no code but its own.

What comes from a guest or a file goes through `escaped`, or compressed into the data of the page's script,
which shows it as text. Should either fail, the policy in the page (CSP) runs no script but the page's own.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from importlib import resources
from typing import TYPE_CHECKING, Any
from unicodedata import category

import msgspec

from xenintro.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FILES = resources.files("xenintro.export") / "page"

#: Between groups of digits: narrow, and no place to break a line.
_THIN = "\u202f"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: object) -> Html:
    """Anything as text in HTML, in an element or in a quoted attribute. What is `Html` stays."""
    if isinstance(text, Html):
        return text
    shown = str(text).encode("utf-8", errors="replace").decode()
    # Neither control characters nor those that turn the direction of what follows.
    return Html(html.escape("".join("\ufffd" if category(one)[0] == "C" else one for one in shown)))


def joined(parts: Iterable[object]) -> Html:
    """One after the other."""
    return Html("".join(map(escaped, parts)))


def element(name: str, *content: object, **attributes: object) -> Html:
    """An element; of an attribute's name a trailing underscore goes, others are hyphens."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{joined(content)}</{name}>")


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[object]], caption: str) -> Html:
    """A table.

    Args:
        columns: heading and class of each: ``number``, ``address`` or none.
        rows: a cell for each column.
        caption: what it shows.
    """
    classes = [kind or None for _, kind in columns]
    head = joined(element("th", name, scope="col", class_=kind or None) for name, kind in columns)
    body = joined(
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True)))
        for row in rows
    )
    whole = element(
        "table", element("caption", caption), element("thead", element("tr", head)), element("tbody", body)
    )
    # Wider than a telephone: it scrolls by itself, and the keyboard reaches it.
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def grouped(number: int) -> str:
    """12 345, with thin spaces."""
    return f"{number:,}".replace(",", _THIN)


def duration(nanoseconds: float) -> str:
    """27 µs or 2 h 5 min, with spaces that do not break."""
    minutes, seconds = divmod(round(nanoseconds / 1e9), 60)
    if minutes < 2:
        return format_ns(nanoseconds).replace(" ", _THIN)
    hours, minutes = divmod(minutes, 60)
    long = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
    return long.replace(" ", _THIN)


def percent(share: float) -> str:
    """A share of one in per cent, with what precision it needs."""
    value = 100 * share
    return f"{value:.0f}{_THIN}%" if value >= 10 or value == 0 else f"{value:.2g}{_THIN}%"


def page(title: str, body: Html, data: Any, scripts: Sequence[str]) -> bytes:
    """The file.

    Args:
        title: of the window.
        body: what is shown.
        data: for the scripts; `xenintro.export.page` says how they get it.
        scripts: names of files in ``xenintro/export/page``, run in this order.
    """
    style = _read("style.css")
    script = "".join(_read(name) for name in scripts)
    packed = gzip.compress(msgspec.json.encode(data), mtime=0)
    parts = {
        "title": escaped(title),
        "policy": f"default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}",
        "style": style,
        "body": body,
        "data": base64.b64encode(packed).decode(),
        "script": script,
    }
    # In one pass: what a part holds is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html")).encode()


def _read(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
