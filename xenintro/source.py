"""Where requests come from: a live ring, a simulated one, a capture. The loop knows only this."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from xenintro.codec import acknowledge
from xenintro.errors import AlreadyAnsweredError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from xenintro.abi import Interface
    from xenintro.events import Event
    from xenintro.response import Response


class SourceEnded(Exception):  # noqa: N818 - no error: everything was answered
    """There will be no more requests, and nothing is wrong: a capture was read to its end."""


class Missed(NamedTuple):
    """A request that was let happen because nobody answered it in time, and what was sent.

    Times are as the session's clock tells them.

    Attributes:
        before: how many requests came before it that `EventSource.requests` has given since the last call of
            `EventSource.missed`.
        taken: it was given too, and its answer came too late.
    """

    event: Event
    response: bytes
    since_ns: int
    answered_ns: int
    before: int
    taken: bool


class EventSource(Protocol):
    """A source of requests and the place for their answers."""

    @property
    def interface(self) -> Interface:
        """The layout of its slots."""

    def wait(self, timeout: float) -> None:
        """Return when requests may be there, after ``timeout`` seconds at the latest.

        Raises:
            DomainGoneError: there will be no more.
            SourceEnded: there will be no more, and that is how it should be.
        """

    def requests(self) -> Iterator[Request]:
        """Every request that is there now. Each must be answered before the next is taken."""

    def check(self, event: Event, response: Response, *, sent: bool = True) -> None:
        """Pass an answer that has the effect it names here.

        Args:
            event: the request.
            response: the answer.
            sent: it will be sent; else it is only noted, and may need what is armed for answers that are.

        Raises:
            IllegalResponseError: see `xenintro.legality`.
        """

    def prepare(self, event: Event, response: Response | None) -> Response:
        """Do what must come before the answer, and give the answer to send.

        ``None`` asks for what lets the event happen, as the guest and the traps in force need it.

        Raises:
            XenintroError: it could not be done; nothing was answered.
        """

    def put(self, response: bytes) -> bool:
        """Put an answer to the oldest unanswered request on the ring; `flush` makes it seen.

        Returns:
            False if that request was let happen meanwhile: the answer is dropped, and `missed` tells of it.
        """

    def flush(self) -> int:
        """Publish all answers and tell the other side; nothing if there are none.

        Returns:
            When the deadline thread did that for the first of them, in monotonic nanoseconds; 0 if it did
            not.
        """

    def missed(self) -> list[Missed]:
        """What was let happen since the last call because this side was too slow, oldest first."""


class Request:
    """One request, and the right to answer it exactly once.

    A context manager: leaving it without an answer, whatever the reason, sends the least response that lets
    the vCPU run. ``raw`` is the slot as it stood on the ring.
    """

    __slots__ = ("_answered", "_source", "raw")

    def __init__(self, raw: bytes, source: EventSource) -> None:
        self.raw = raw
        self._source = source
        self._answered = False

    def answer(self, response: bytes) -> bool:
        """Answer with a response slot; see `EventSource.put`.

        Raises:
            AlreadyAnsweredError: there was an answer before; nothing was sent.
        """
        if self._answered:
            raise AlreadyAnsweredError("this request was answered before", why="one request, one answer")
        self._answered = True
        return self._source.put(response)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._answered:
            self._answered = True
            self._source.put(acknowledge(self.raw, self._source.interface))
