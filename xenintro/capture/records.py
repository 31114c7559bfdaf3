"""What a capture holds beside requests and responses, and what it says of an answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from xenintro.response import ALLOWED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenintro.answered import Answered
    from xenintro.events import Event

#: LINKTYPE_USER0 .. LINKTYPE_USER2: requests and responses, ring pages, guest memory.
SLOTS, PAGES, MEMORY = 147, 148, 149

#: What separates words in a comment, or its values, is written as %XX in names.
_RESERVED = re.compile(r"[\x00-\x20\x7f%,=]")

_WORDS = {"rule", "level", "tags", "would", "late", "unasked", "recovered"}

#: What the answer of a request is called that has none in the capture.
UNANSWERED = "unanswered"


class CapturedPage(NamedTuple):
    """A whole ring page: ``raw`` has 4096 bytes; ``time_ns`` since the epoch."""

    time_ns: int
    raw: bytes


class CaptureTotals(NamedTuple):
    """What the writer counted, told when the capture was closed.

    Attributes:
        started_ns, ended_ns: nanoseconds since the epoch.
        requests: recorded in this file.
        lost: answered, but not recorded.
    """

    started_ns: int
    ended_ns: int
    requests: int
    lost: int


class RecordedRule(NamedTuple):
    """The rule that had a say, as the capture tells of it; an `xenintro.verdict.Rule`."""

    name: str
    level: str | None = None
    tags: tuple[str, ...] = ()
    text: str | None = None

    def message(self, event: Event) -> str | None:
        """What it said of the event that it was recorded with."""
        return self.text


class Remark(NamedTuple):
    """What is to be said of an answer beyond its bytes."""

    answer: str = ALLOWED.name
    rule: RecordedRule | None = None
    would: str | None = None
    late: bool = False
    asked: bool = True
    recovered: bool = False


_NOTHING = Remark()


def comments(answered: Answered) -> tuple[str, ...]:
    """The comments on a response: none on a plain allow, else what it is, and the rule's message."""
    rule = answered.rule
    plain = rule is None and answered.would is None and answered.asked and not answered.late
    if plain and answered.answer == ALLOWED.name:
        return ()
    words = [_word(answered.answer)]
    if rule is not None:
        words.append(f"rule={_word(rule.name)}")
        if rule.level:
            words.append(f"level={_word(rule.level)}")
        if rule.tags:
            words.append(f"tags={','.join(map(_word, rule.tags))}")
    if answered.would is not None:
        words.append(f"would={_word(answered.would)}")
    if answered.late:
        words.append("late")
    if not answered.asked:
        words.append("unasked")
    message = None if rule is None else rule.message(answered.event)
    return (" ".join(words), message) if message else (" ".join(words),)


def recovered(answer: str) -> str:
    """The comment on a response that was recorded after the death of who had sent it, or was about to."""
    return f"{_word(answer)} recovered"


def remark(texts: Sequence[str]) -> Remark:
    """What the comments on a response say; one that is not ours (an analyst's note) says nothing."""
    if not texts:
        return _NOTHING
    name, *words = texts[0].split(" ")
    said = dict(word.partition("=")[::2] for word in words)
    if not name or not said.keys() <= _WORDS:
        return _NOTHING
    rule = None
    if "rule" in said:
        rule = RecordedRule(
            unquote(said["rule"]),
            unquote(said["level"]) if "level" in said else None,
            tuple(map(unquote, said["tags"].split(","))) if "tags" in said else (),
            texts[1] if len(texts) > 1 else None,
        )
    would = unquote(said["would"]) if "would" in said else None
    flags = ("late" in said, "unasked" not in said, "recovered" in said)
    return Remark(unquote(name), rule, would, *flags)


def _word(text: str) -> str:
    """A name as one word."""
    return _RESERVED.sub(lambda match: f"%{ord(match[0]):02X}", text)
