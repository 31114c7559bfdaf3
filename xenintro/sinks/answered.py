"""The JSON line of an answered request: the event, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenintro.sinks import jsonl

if TYPE_CHECKING:
    from xenintro.answered import Answered
    from xenintro.events import Event
    from xenintro.verdict import Rule


class AnsweredLines:
    """Makes lines for one domain.

    Args:
        domid: the domain, None where unknown.
        domain: its name, None where unknown.
        offset_ns: what makes nanoseconds since the epoch of their times; 0 for a capture.
    """

    def __init__(self, domid: int | None, domain: str | None, offset_ns: int = 0) -> None:
        head = {"domid": domid, "domain": domain}
        self._head: dict[str, Any] = {key: value for key, value in head.items() if value is not None}
        self.offset_ns = offset_ns

    def line(self, answered: Answered, seq: int) -> bytes:
        """One line with its newline."""
        record: dict[str, Any] = {
            "v": 1,
            "seq": seq,
            "ts": jsonl.timestamp(answered.taken_ns + self.offset_ns),
            **self._head,
            **jsonl.event_record(answered.event),
            "answer": answered.answer,
            "rule": None if answered.rule is None else answered.rule.name,
            "pause_ns": answered.pause_ns,
        }
        if answered.rule is not None:
            record |= _said(answered.rule, answered.event)
        if answered.would is not None:
            record["would"] = answered.would
        if answered.late:
            record["late"] = True
        return jsonl.line(record)


def _said(rule: Rule, event: Event) -> dict[str, Any]:
    """The keys that only some rules give."""
    said = {"message": rule.message(event), "level": rule.level, "tags": rule.tags}
    return {key: value for key, value in said.items() if value}
