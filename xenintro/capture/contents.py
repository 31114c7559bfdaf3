"""What is in a capture, counted in constant memory."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from xenintro.capture.records import UNANSWERED
from xenintro.stats import Histogram

if TYPE_CHECKING:
    from typing import Self

    from xenintro.answered import Answered
    from xenintro.guest import GuestRead

_SECOND_NS = 1_000_000_000

#: A time without events that is worth a line, and how many lines there are.
_SILENCE_NS = _SECOND_NS
_MOST_SILENCES = 5

#: Distinct answers that are told apart; what comes after them is counted together.
_MOST_ANSWERS = 4096


class Silence(NamedTuple):
    """A time without requests or answers: how long, and since when (since the epoch); nanoseconds."""

    length_ns: int
    since_ns: int


class Said(NamedTuple):
    """An answer, and who gave it.

    Attributes:
        answer: its name.
        would: what a policy would have answered that was observed; None if none was.
        rule, level: whose it is, None where no rule had a say.
    """

    answer: str
    would: str | None
    rule: str | None
    level: str | None

    @classmethod
    def of(cls, answered: Answered) -> Self:
        """What was said to one request."""
        rule = answered.rule
        name, level = (None, None) if rule is None else (rule.name, rule.level)
        return cls(answered.answer, answered.would, name, level)


_OTHERS = Said("[others]", None, None, None)


class Contents:
    """Counts requests as they are read.

    Attributes:
        pauses: by reason, of requests whose vCPU waited for an answer.
        reasons: requests by reason.
        answers: requests by what was answered.
        late: requests that the deadline thread answered.
        first_ns, last_ns: times of the first request and the last answer, since the epoch; 0 without any.
        busiest: most requests within one second of the clock.
        reads, read_bytes: guest memory that policies read.
    """

    def __init__(self) -> None:
        self.pauses: dict[str, Histogram] = {}
        self.reasons: Counter[str] = Counter()
        self.answers: Counter[Said] = Counter()
        self.late = 0
        self.first_ns = self.last_ns = 0
        self.busiest = 0
        self.reads = self.read_bytes = 0
        self._silences: list[Silence] = []
        self._second, self._in_second = -1, 0

    def count(self, answered: Answered, reads: tuple[GuestRead, ...] = ()) -> None:
        """Count one request, and the memory that was read for it."""
        reason = answered.event.reason
        self.reasons[reason] += 1
        pause_ns = answered.pause_ns
        if pause_ns is not None:
            pauses = self.pauses.get(reason)
            if pauses is None:
                pauses = self.pauses[reason] = Histogram()
            pauses.record(max(pause_ns, 0))
        said = Said.of(answered)
        if len(self.answers) >= _MOST_ANSWERS and said not in self.answers:
            said = _OTHERS
        self.answers[said] += 1
        self.late += answered.late
        for read in reads:
            self.reads += 1
            self.read_bytes += len(read.data)
        self._pass(answered.taken_ns, answered.answered_ns)

    def _pass(self, now_ns: int, answered_ns: int) -> None:
        """Note how much time went by since the request before."""
        if not self.first_ns:
            self.first_ns = self.last_ns = now_ns
        silence_ns = now_ns - self.last_ns
        if silence_ns >= _SILENCE_NS:
            self._silences.append(Silence(silence_ns, self.last_ns))
            self._silences = sorted(self._silences, reverse=True)[:_MOST_SILENCES]
        self.last_ns = max(answered_ns, self.last_ns)
        second = now_ns // _SECOND_NS
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        self.busiest = max(self.busiest, self._in_second)

    @property
    def events(self) -> int:
        """All requests."""
        return self.reasons.total()

    @property
    def unanswered(self) -> int:
        """Requests whose response is not in the capture."""
        return sum(count for said, count in self.answers.items() if said.answer == UNANSWERED)

    @property
    def duration_ns(self) -> int:
        """From the first request to the last answer."""
        return self.last_ns - self.first_ns

    @property
    def paused_ns(self) -> int:
        """How long vCPUs waited, in all."""
        return sum(pauses.total for pauses in self.pauses.values())

    @property
    def silences(self) -> list[Silence]:
        """The longest times without events, a second or more, at most five; in their order."""
        return sorted(self._silences, key=lambda silence: silence.since_ns)

    def rate(self, count: int) -> float:
        """So many events as events per second; 0 if no time went by."""
        return count * 1e9 / self.duration_ns if self.duration_ns else 0.0
