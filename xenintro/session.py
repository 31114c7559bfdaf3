"""The loop: take, decode, decide, answer; only then look at what happened."""

from __future__ import annotations

import logging
from collections import Counter
from time import monotonic_ns
from typing import TYPE_CHECKING

from xenintro.answered import Answered
from xenintro.codec import acknowledge, decode, encode
from xenintro.errors import RuleError, described
from xenintro.response import ALLOWED, PLAIN
from xenintro.source import SourceEnded
from xenintro.stats import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xenintro.events import Event
    from xenintro.guest import Guest
    from xenintro.response import Response
    from xenintro.source import EventSource, Missed
    from xenintro.verdict import Rule, Verdict

_log = logging.getLogger(__name__)

#: A notification can be lost (notify_via_xen_event_channel gives up when the port's lock is held, Xen 4.13
#: and newer); looking again after this many seconds bounds what that costs.
BACKSTOP = 0.1

#: Answered requests that may wait to be shown while more come, and how long.
_BATCH, _BATCH_NS = 64, 100_000_000
#: How long answers may wait for those to the next requests, so that Xen is told of all at once.
_TOGETHER_NS = 5_000_000


class PolicyInterrupted(BaseException):
    """Raised inside a policy that does not come back when the session is to end."""

    def __str__(self) -> str:
        return "interrupted, it did not come back"


class Summary:
    """What a session did, kept up to date while it runs.

    Attributes:
        pauses: time from taking a request to its answer in nanoseconds, by reason; its count is the number
            of events.
        rules: events by the rule that had a say, its answer sent or only noted.
        shown: events that the observers were given.
        said: what rules answered, or would, by rule and answer: ``deny``, ``would deny``.
        policy_errors: decisions that failed: a rule could not decide, or answered what Xen would ignore.
        errors: the same by rule.
        deadline_missed: requests that waited for the deadline; those events were allowed.
    """

    def __init__(self, clock: Callable[[], int] = monotonic_ns) -> None:
        self.pauses: dict[str, Histogram] = {}
        self.rules: Counter[str] = Counter()
        self.said: Counter[tuple[str, str]] = Counter()
        self.shown = 0
        self.policy_errors = 0
        self.errors: Counter[str] = Counter()
        self.deadline_missed = 0
        self._clock = clock
        self._started_ns = clock()
        self._ended_ns: int | None = None

    @property
    def events(self) -> int:
        """Requests answered."""
        return sum(pauses.count for pauses in self.pauses.values())

    @property
    def duration_ns(self) -> int:
        """How long the session ran, or has run."""
        return (self._ended_ns or self._clock()) - self._started_ns

    @property
    def paused_ns(self) -> int:
        """Time that vCPUs waited for answers, added up."""
        return sum(pauses.total for pauses in self.pauses.values())

    def end(self) -> None:
        """Stop the clock."""
        self._ended_ns = self._clock()

    def count(self, answered: Answered) -> None:
        """Add one answered request. An asynchronous event paused nobody."""
        self.deadline_missed += answered.late
        if answered.rule is not None:
            self.rules[answered.rule.name] += 1
            answer = answered.answer if answered.would is None else f"would {answered.would}"
            self.said[answered.rule.name, answer] += 1
        pauses = self.pauses.get(answered.event.reason)
        if pauses is None:
            pauses = self.pauses[answered.event.reason] = Histogram()
        pauses.record(answered.pause_ns or 0)


class Session:
    """Answers every request of a source until it is told to stop.

    Args:
        source: where requests come from.
        decide: the policy: gives a verdict, or None if it has no say, and the event happens. So it does if
            it raises, and the error is counted: a broken policy never stops the guest.
        guest: what the policy asks; it is told of every event that the policy is asked about.
        enforce: send what the policy answers; else it is only noted, and the event happens.
        wanted: which events the policy and the observers are given; all are answered.
        shows: which of these the observers are given, now that they are answered; else all.
        observers: called with what was answered in one go, once the answers are out, and with an empty list
            now and then while nothing happens.
        limit: stop after this many events were shown.
        duration: stop after this many seconds.
        record: called with everything that was answered, wanted or not, at once: after the answers, and
            before the next request is taken.
        clock: which time it is, in nanoseconds; a capture has its own.

    Attributes:
        decide, enforce, record: may be replaced while the session runs, by an observer for instance.
        summary: what happened so far.
    """

    def __init__(
        self,
        source: EventSource,
        *,
        decide: Callable[[Event], Verdict | None] | None = None,
        guest: Guest | None = None,
        enforce: bool = True,
        wanted: Callable[[Event], bool] | None = None,
        shows: Callable[[Answered], bool] | None = None,
        observers: Iterable[Callable[[list[Answered]], None]] = (),
        limit: int | None = None,
        duration: float | None = None,
        record: Callable[[list[Answered]], None] | None = None,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._source = source
        self.decide = decide
        self.enforce = enforce
        self.record = record
        self._guest = guest
        self._wanted = wanted
        self._shows = shows
        self._observers = tuple(observers)
        self._limit = limit
        self._duration_ns = None if duration is None else int(duration * 1e9)
        self._stopping = False
        self._deciding = False
        self._policy_error: BaseException | None = None
        self._said = ""
        self._clock = clock
        self.summary = Summary(clock)

    def stop(self) -> None:
        """End `run` after the present batch; safe to call from a signal handler.

        From now on no policy is asked. One that does not come back is interrupted by a second call, where
        that comes from a signal handler.
        """
        if self._stopping and self._deciding:
            self._deciding = False
            raise PolicyInterrupted
        self._stopping = True

    def run(self) -> Summary:
        """Answer until stopped, the limit, or the end of the source.

        Raises:
            DomainGoneError: the domain died.
            XenintroError: whatever an observer or the source raised, after all that was taken was answered.
        """
        try:
            while not self._done():
                self._source.wait(BACKSTOP)
                self._turn()
        except SourceEnded:
            pass
        finally:
            self.summary.end()
        return self.summary

    def _turn(self) -> None:
        """Answer what is there, then show it."""
        until_ns = self._clock() + _BATCH_NS
        batch: list[Answered] = []
        try:
            self._answer(batch)
            # Those who wait go before those who watch: look again before anything is shown.
            while 0 < (before := len(batch)) < _BATCH and self._clock() < until_ns:
                self._answer(batch)
                if len(batch) == before:
                    break
        finally:
            self._observe(batch)  # what was answered is shown, whatever came after it

    def answer_batch(self) -> list[Answered]:
        """Answer every request that is there now, and tell Xen; only some of them if a policy is slow."""
        batch: list[Answered] = []
        self._answer(batch)
        return batch

    def drained(self, answered: list[Missed]) -> None:
        """Count and record what was answered while the domain was given back, when nobody was asked."""
        drained = [
            Answered(event, PLAIN.name, sent, since_ns, answered_ns, asked=False)
            for event, sent, since_ns, answered_ns, _, _ in answered
        ]
        batch = _in_order(drained, self._source.missed())
        for one in batch:
            self.summary.count(one)
        if batch and self.record is not None:
            self.record(batch)

    def _answer(self, batch: list[Answered]) -> None:
        """What `answer_batch` does; what was answered is in the batch whatever is raised."""
        source, clock = self._source, self._clock
        interface = source.interface
        out: list[tuple[Event, str, bytes, int, Rule | None, str | None, bool, bool]] = []
        first_ns = 0
        try:
            for request in source.requests():
                taken_ns = clock()
                with request:  # whatever happens below, the vCPU runs on
                    event = decode(request.raw, interface)
                    wish, rule, asked = self._wish(event, taken_ns)
                    would: str | None = None
                    if wish is not None and not self.enforce:
                        would = wish.name
                        wish = None
                    name, sent = PLAIN.name, b""
                    try:
                        response = source.prepare(event, wish)
                        name, sent = response.name, encode(event, response)
                    finally:
                        sent = sent or acknowledge(request.raw, interface)
                        if request.answer(sent):
                            out.append((event, name, sent, taken_ns, rule, would, False, asked))
                        else:  # `missed` tells what was sent
                            out.append((event, ALLOWED.name, b"", taken_ns, None, None, True, asked))
                first_ns = first_ns or taken_ns
                if taken_ns - first_ns > _TOGETHER_NS:
                    break  # the next request will be there each time, for ever
        finally:
            sooner_ns = source.flush()
            answered_ns = clock()
            answered = [
                Answered(
                    *(event, name, sent, taken_ns, sooner_ns if taken_ns < sooner_ns else answered_ns),
                    *(rule, would, late, asked),
                )
                for event, name, sent, taken_ns, rule, would, late, asked in out
            ]
            if missed := source.missed():
                answered = _in_order(answered, missed)
            batch += answered
            if answered and self.record is not None:
                self.record(answered)

    def _wish(self, event: Event, taken_ns: int) -> tuple[Response | None, Rule | None, bool]:
        """What the policy answers, and which rule; None lets the event happen. And `Answered.asked`."""
        if self.decide is None or (self._wanted is not None and not self._wanted(event)):
            return None, None, True
        if self._stopping:
            return None, None, False
        rule: Rule | None = None
        try:
            self._deciding = True
            if self._guest is not None:
                self._guest.begin(taken_ns)
            verdict = self.decide(event)
            self._deciding = False
            if verdict is None:
                return None, None, True
            response, rule, errors = verdict
            if errors:
                self._failed(errors[0])
            if response is None or response.name == ALLOWED.name:
                return None, rule, True
            self._source.check(event, response, sent=self.enforce)
        except (Exception, SystemExit, GeneratorExit, PolicyInterrupted) as error:
            self._deciding = False
            self._failed(error if rule is None else RuleError(rule.name, error))
            return None, None, type(error) is not PolicyInterrupted
        return response, rule, True

    def _failed(self, error: BaseException) -> None:
        self.summary.policy_errors += 1
        self._policy_error = error
        if isinstance(error, RuleError):
            self.summary.errors[error.rule] += 1

    def _observe(self, batch: list[Answered]) -> None:
        for answered in batch:
            self.summary.count(answered)
        if self._policy_error is not None and (text := described(self._policy_error)) != self._said:
            self._said = text
            _log.warning("the policy failed, events are allowed: %s", text)
        self._policy_error = None
        wanted = self._wanted
        shown = batch if wanted is None else [answered for answered in batch if wanted(answered.event)]
        if self._shows is not None:
            shown = list(filter(self._shows, shown))
        if self._limit is not None:
            shown = shown[: self._limit - self.summary.shown]
        self.summary.shown += len(shown)
        for observer in self._observers:
            observer(shown)

    def _done(self) -> bool:
        return (
            self._stopping
            or (self._limit is not None and self.summary.shown >= self._limit)
            or (self._duration_ns is not None and self.summary.duration_ns >= self._duration_ns)
        )


def _in_order(batch: list[Answered], missed: list[Missed]) -> list[Answered]:
    """What was answered, and what was let happen meanwhile where it belongs: in the order of the ring."""
    whole = list(batch)
    for event, sent, since_ns, answered_ns, at, taken in reversed(missed):
        late = Answered(event, ALLOWED.name, sent, since_ns, answered_ns, late=True, asked=False)
        if taken and at < len(whole):
            whole[at] = late._replace(asked=whole[at].asked)
        else:
            whole.insert(at, late)
    return whole
