"""Two policies on one capture, side by side: what each would have answered, enforced, to every request."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack, contextmanager
from itertools import tee
from typing import TYPE_CHECKING, NamedTuple

from xenintro.capture.replay import RecordedMemory, ReplaySource, guest_of, what_if
from xenintro.errors import PolicyError, described
from xenintro.policy import running
from xenintro.session import Session
from xenintro.source import SourceEnded
from xenintro_cli.recorded import wanted_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.capture.reader import Capture
    from xenintro.events import Event
    from xenintro.guest import GuestRead
    from xenintro.policy import Policy
    from xenintro.verdict import Verdict


class Said(NamedTuple):
    """What one policy makes of a request; ``error`` is why it could not decide, or not so."""

    answered: Answered
    error: str = ""


def compare(capture: Capture, policies: tuple[Policy, Policy]) -> Iterator[tuple[Said, Said]]:
    """The answers of both to each request of a capture, in order.

    They are asked where the recording session would have asked them, about guest memory as it was read then.
    """
    info = what_if(capture.info, "enforce")
    pairs = tee((answered, tuple(capture.reads)) for answered in capture)
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(_side(capture, info, policy, pair))
            for policy, pair in zip(policies, pairs, strict=True)
        )
        going = True
        while going:
            going = all([first.step(), second.step()])  # a list: both take their step
            while first.said and second.said:
                yield first.said.popleft(), second.said.popleft()


class _Recorded:
    """A capture of one's own, with what was read from guest memory for the request given last."""

    def __init__(self, pairs: Iterator[tuple[Answered, Sequence[GuestRead]]]) -> None:
        self._pairs = pairs
        self.reads: Sequence[GuestRead] = ()

    def __iter__(self) -> Iterator[Answered]:
        for answered, reads in self._pairs:
            self.reads = reads
            yield answered


class _Side:
    """A session of one policy."""

    def __init__(
        self, source: ReplaySource, session: Session, decide: Callable[[Event], Verdict | None]
    ) -> None:
        self.said: deque[Said] = deque()
        self._source = source
        self._session = session
        self._policy = source.deciding(decide)
        self._error = ""
        session.decide = self._decide
        session.record = self._record
        source.given_back = session.drained

    def step(self) -> bool:
        """Answer the next request; False at the end of the capture."""
        try:
            self._source.wait(0)
        except SourceEnded:
            return False
        self._session.answer_batch()
        return True

    def _decide(self, event: Event) -> Verdict | None:
        self._error = ""
        try:
            verdict = self._policy(event)
            if verdict is not None and verdict.response is not None:
                self._source.check(event, verdict.response)
        except PolicyError as error:
            self._error = described(error)
            raise
        if verdict is not None and verdict.errors:
            self._error = described(verdict.errors[0])
        return verdict

    def _record(self, batch: list[Answered]) -> None:
        for answered in batch:
            error = ""
            if answered.asked:  # late ones, which nobody was asked about, may stand before it
                error, self._error = self._error, ""
            self.said.append(Said(answered, error))


@contextmanager
def _side(
    capture: Capture, info: CaptureInfo, policy: Policy, pairs: Iterator[tuple[Answered, Sequence[GuestRead]]]
) -> Iterator[_Side]:
    recorded = _Recorded(pairs)
    source = ReplaySource(recorded, info, capture.interface)
    guest = guest_of(info, RecordedMemory(recorded))
    session = Session(source, guest=guest, wanted=wanted_of("", info, capture.interface), clock=source.now_ns)
    with running([policy], guest) as decide:
        assert decide is not None
        yield _Side(source, session, decide)
