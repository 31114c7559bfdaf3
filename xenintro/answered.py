"""A request that has been answered: what sinks, captures and exports are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from xenintro.events import Event
    from xenintro.verdict import Rule


class Answered(NamedTuple):
    """An event, its answer, and when.

    Attributes:
        event: the request; its ``raw`` is the slot as it stood on the ring.
        answer: what the answer is called: ``allow``, ``deny``; ``unanswered`` in a capture that has none.
        response: the response slot as it was sent, empty where there is none.
        taken_ns, answered_ns: monotonic nanoseconds from a live session, nanoseconds since the epoch from
            a capture.
        rule: whose answer it is, or would be; None if no policy had a say.
        would: the answer of a policy that is only observed.
        late: this side was too slow, the deadline thread let the event happen, and an answer that came
            later was dropped.
        asked: the policy was asked, or there was none; it is not about a request that the deadline thread
            answered before the loop came to it, nor once the session is to end.
        recovered: from a capture, written after the death of who answered: what a policy had to say is lost.
    """

    event: Event
    answer: str
    response: bytes
    taken_ns: int
    answered_ns: int
    rule: Rule | None = None
    would: str | None = None
    late: bool = False
    asked: bool = True
    recovered: bool = False

    @property
    def pause_ns(self) -> int | None:
        """How long the vCPU waited for this process.

        None if it did not wait (an asynchronous event), or no answer is known (in a capture).
        """
        return self.answered_ns - self.taken_ns if self.event.paused and self.response else None
