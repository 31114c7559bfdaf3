"""What the service has counted since it started, over every attachment."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from xenintro.stats import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenintro.answered import Answered
    from xenintro.session import Summary


class Recent(NamedTuple):
    """The last few seconds: events per second, pauses in nanoseconds, share of the vCPUs' time."""

    rate: float = 0.0
    p99_ns: int = 0
    paused_ratio: float = 0.0


class Totals:
    """Sums over the sessions that ended, and the one that runs.

    Attributes:
        answers: by their names.
        would: answers of policies that are only observed.
        matches: events that a rule had a say in, by rule and mode.
        attachments: how often the domain was attached to.
        together: how often so many requests were on the ring when the loop came round.
        shown: events that were asked for; the next one's number in ``ctl tail``.
        recent: see `look`.
    """

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.would: Counter[str] = Counter()
        self.matches: Counter[tuple[str, str]] = Counter()
        self.together: Counter[int] = Counter()
        self.attachments = 0
        self.shown = 0
        self.recent = Recent()
        self._ended: dict[str, Histogram] = {}
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._summary: Summary | None = None
        self._before = (monotonic(), Histogram())

    def begin(self, summary: Summary) -> None:
        """A session starts."""
        self._summary = summary
        self.attachments += 1

    def end(self) -> None:
        """The session is over."""
        summary, self._summary = self._summary, None
        if summary is not None:
            for reason, pauses in summary.pauses.items():
                self._ended.setdefault(reason, Histogram()).add(pauses)
            self._counts["policy_errors"] += summary.policy_errors
            self._errors += summary.errors
            self._counts["deadline_missed"] += summary.deadline_missed
        self.recent = Recent()

    def count(self, batch: list[Answered], *, enforce: bool = False) -> None:
        """Add what was answered and asked for."""
        mode = "enforce" if enforce else "observe"
        self.shown += len(batch)
        for answered in batch:
            self.answers[answered.answer] += 1
            if answered.rule is not None:
                self.matches[answered.rule.name, mode] += 1
            if answered.would is not None:
                self.would[answered.would] += 1

    def look(self, nr_vcpus: int) -> None:
        """Bring `recent` up to date: what came since this was called before."""
        now, everything = monotonic(), Histogram()
        for pauses in self.pauses().values():
            everything.add(pauses)
        then, before = self._before
        self._before = (now, everything)
        last = everything.since(before)
        seconds = max(now - then, 1e-3)
        self.recent = Recent(
            last.count / seconds, last.percentile(99), last.total / (seconds * 1e9 * max(nr_vcpus, 1))
        )

    def pauses(self) -> Mapping[str, Histogram]:
        """Pauses by reason; their counts are the events."""
        merged: dict[str, Histogram] = {}
        for part in (self._ended, self._summary.pauses if self._summary else {}):
            for reason, pauses in part.items():
                merged.setdefault(reason, Histogram()).add(pauses)
        return merged

    @property
    def events(self) -> int:
        """Requests answered."""
        return sum(pauses.count for pauses in self.pauses().values())

    @property
    def policy_errors(self) -> int:
        """Decisions that raised."""
        return self._counts["policy_errors"] + (self._summary.policy_errors if self._summary else 0)

    @property
    def errors(self) -> Counter[str]:
        """The same by rule; what is no rule's is counted under an empty name."""
        errors = self._errors + (self._summary.errors if self._summary else Counter())
        if nobodys := self.policy_errors - errors.total():
            errors[""] = nobodys
        return errors

    @property
    def deadline_missed(self) -> int:
        """Requests that the deadline thread answered."""
        return self._counts["deadline_missed"] + (self._summary.deadline_missed if self._summary else 0)
