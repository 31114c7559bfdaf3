"""Colour and characters: what a stream can show. Colour carries no meaning that the text does not."""

from __future__ import annotations

import os
from typing import IO, Any

import click

from xenintro.hues import hue_of


class Style:
    """How to write to one stream.

    Args:
        color: whether to use colour.
        utf8: whether the stream's encoding has arrows and the like.
    """

    def __init__(self, *, color: bool, utf8: bool) -> None:
        self.color = color
        self.arrow = "→" if utf8 else "->"
        self.micro = "µ" if utf8 else "u"
        self.dots = "…" if utf8 else "..."

    @classmethod
    def of(cls, stream: IO[Any], choice: str = "auto") -> Style:
        """The style for a stream: ``always``, ``never``, or ``auto`` by environment and terminal."""
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        return cls(color=_wants_color(stream, choice), utf8=encoding == "utf8")

    def event(self, text: str, reason: str) -> str:
        """An event's name in the hue of its kind."""
        return self._paint(text, fg=hue_of(reason))

    def dim(self, text: str) -> str:
        """What matters least on a line."""
        return self._paint(text, dim=True)

    def alarm(self, text: str) -> str:
        """What must not be overlooked."""
        return self._paint(text, fg="red", bold=True)

    def level(self, text: str, level: str) -> str:
        """A finding's level."""
        return self._paint(text, fg={"ok": "green", "warn": "yellow", "error": "red"}.get(level, "cyan"))

    def _paint(self, text: str, **attributes: Any) -> str:
        return click.style(text, **attributes) if self.color else text


def _wants_color(stream: IO[Any], choice: str) -> bool:
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()
