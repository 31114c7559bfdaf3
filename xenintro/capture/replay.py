"""A capture as a source of requests: the session answers it as it answered the domain."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from xenintro import legality
from xenintro.abi import Flag
from xenintro.codec import acknowledge, encode
from xenintro.errors import DamagedInputError, GuestReadError, XenintroError
from xenintro.guest import Guest
from xenintro.legality import Machine
from xenintro.response import PLAIN
from xenintro.source import Missed, Request, SourceEnded
from xenintro.traps import parse_traps
from xenintro.xen.stepping import Stepping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from xenintro.abi import Interface
    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.events import Event
    from xenintro.guest import GuestRead, Memory
    from xenintro.response import Response
    from xenintro.traps import Trap
    from xenintro.verdict import Verdict


class Reads(Protocol):
    """Tells what was read from guest memory for the request that was given last: `Capture` does."""

    @property
    def reads(self) -> Sequence[GuestRead]: ...  # noqa: D102


class ReplaySource:
    """An `xenintro.source.EventSource` whose requests were recorded, and whose answers go nowhere.

    One request at a time, on the clock of the capture. What was late is late again: the policy is asked if it
    was asked then, and its answer dropped. What the loop did not answer but the teardown, when nobody was
    asked any more, is handed to `given_back`.

    Args:
        recorded: what was answered, in the order of the requests; times in nanoseconds since the epoch.
        info: of the capture.
        interface: the layout of its slots.
        pace: requests come this many times as fast as they were recorded; None does not wait.

    Attributes:
        given_back: gets what was answered by the teardown; give it `xenintro.session.Session.drained`.
        unanswered: requests without an answer in the capture, so far.
    """

    def __init__(
        self,
        recorded: Iterable[Answered],
        info: CaptureInfo,
        interface: Interface,
        *,
        pace: float | None = None,
    ) -> None:
        self.interface = interface
        self._recorded = iter(recorded)
        self._machine = info.machine or Machine(control_registers=True)
        self._machine_if_enforced = replace(self._machine, control_registers=True)
        self._late = False  # the request at hand was answered by the deadline thread
        self._stepping = Stepping(
            traps_of(info, interface),
            lambda gfn, access: None,
            lambda: not self._late,
            can_step=self._machine.singlestep,
        )
        self._stepping.state = info.steps
        self._next: Answered | None = next(self._recorded, None)
        self._at_hand: Answered | None = None
        self._missed: list[Missed] = []
        self.unanswered = 0
        self._given = 0  # since the last call of `missed`
        self._pace = pace
        self._first_ns = self._next.taken_ns if self._next else 0
        self._begun = monotonic()
        self._now_ns = min(info.started_ns or self._first_ns, self._first_ns)
        self.given_back: Callable[[list[Missed]], None] | None = None

    # EventSource

    def now_ns(self) -> int:
        """The time of the request at hand, then of its answer: the clock for the session."""
        return self._now_ns

    def wait(self, timeout: float) -> None:
        """See `xenintro.source.EventSource.wait`."""
        if self._next is None:
            raise SourceEnded
        if (left := self._left(self._next)) > 0:
            sleep(min(left, timeout))

    def requests(self) -> Iterator[Request]:
        """See `xenintro.source.EventSource.requests`. Gives one."""
        while (record := self._next) is not None and self._left(record) <= 0:
            self._at_hand = record
            self._now_ns = record.taken_ns
            self._late = record.late
            self.unanswered += not record.response
            if _is_given_back(record):
                self._give_back(record)
            elif record.late and not record.asked:
                self._let(record, taken=False)
            else:
                self._given += 1
                yield Request(record.event.raw, self)
                return

    def check(self, event: Event, response: Response, *, sent: bool = True) -> None:
        """See `xenintro.source.EventSource.check`."""
        legality.check(event, response, self._machine if sent else self._machine_if_enforced)

    def prepare(self, event: Event, response: Response | None) -> Response:
        """See `xenintro.source.EventSource.prepare`."""
        return self._stepping.prepare(event, response)

    def put(self, response: bytes) -> bool:
        """See `xenintro.source.EventSource.put`."""
        record = self._at_hand
        assert record is not None, "no request is at hand"
        if record.late:
            self._let(record, taken=True)
            return False
        self._go_on()
        return True

    def flush(self) -> int:
        """See `xenintro.source.EventSource.flush`."""
        if self._at_hand is not None:
            self._now_ns = _answered_ns(self._at_hand)
        return 0

    def missed(self) -> list[Missed]:
        """See `xenintro.source.EventSource.missed`."""
        missed, self._missed = self._missed, []
        self._given = 0
        return missed

    # Beyond

    def deciding(self, decide: Callable[[Event], Verdict | None]) -> Callable[[Event], Verdict | None]:
        """The same policy, not asked where it was not asked either: the session was about to end."""

        def asked(event: Event) -> Verdict | None:
            return decide(event) if self._at_hand is None or self._at_hand.asked else None

        return asked

    # Details

    def _left(self, record: Answered) -> float:
        """Seconds until a request is due."""
        if self._pace is None:
            return 0.0
        since = (record.taken_ns - self._first_ns) / 1e9
        return since / self._pace - (monotonic() - self._begun)

    def _go_on(self) -> None:
        self._next = next(self._recorded, None)

    def _give_back(self, record: Answered) -> None:
        event = record.event
        sent = acknowledge(event.raw, self.interface)
        if self.given_back is not None:
            self.given_back([Missed(event, sent, record.taken_ns, _answered_ns(record), 0, False)])
        self._now_ns = _answered_ns(record)
        self._go_on()

    def _let(self, record: Answered, *, taken: bool) -> None:
        """What the deadline thread did: the event happens."""
        event = record.event
        sent = encode(event, self._stepping.late(event))
        self._stepping.missed(event, claimed=False)
        before = self._given - taken
        times = (record.taken_ns, _answered_ns(record))
        self._missed.append(Missed(event, sent, *times, before, taken))
        self._go_on()


class RecordedMemory:
    """An `xenintro.guest.Memory` of what was read then to decide on the same request."""

    def __init__(self, capture: Reads) -> None:
        self._capture = capture

    def begin(self, now_ns: int) -> None:
        """See `xenintro.guest.Memory.begin`."""

    def read(self, gpa: int, size: int) -> bytes:
        """See `xenintro.guest.Memory.read`."""
        for read in self._capture.reads:
            if read.gpa <= gpa and gpa + size <= read.gpa + len(read.data):
                return read.data[gpa - read.gpa :][:size]
        raise GuestReadError(f"cannot read guest memory at {gpa:#x}", why="it is not in the capture")


def guest_of(info: CaptureInfo, memory: Memory) -> Guest:
    """The guest of a capture, for policies; what is unknown is 0, or ``-``."""
    return Guest(info.domid or 0, info.uuid or "-", info.domain, info.nr_vcpus or 0, memory)


def what_if(info: CaptureInfo, mode: str) -> CaptureInfo:
    """The same for policies that were not there, or a mode: what is armed for those that deny is armed."""
    return replace(info, mode=mode, machine=replace(info.machine or Machine(), control_registers=True))


def traps_of(info: CaptureInfo, interface: Interface) -> tuple[Trap, ...]:
    """The traps that were on; those that the interface has no events for cannot have been.

    Raises:
        DamagedInputError: the capture says something that is no list of traps.
    """
    if not info.events:
        return ()
    try:
        traps = parse_traps(info.events)
    except XenintroError as error:
        raise DamagedInputError(
            "the traps that this capture names cannot be",
            why=": ".join(filter(None, (error.what, error.why))),
        ) from error
    steps = interface.has_flag(Flag.TOGGLE_SINGLESTEP)
    reasons = set(interface.reasons.values())
    return tuple(trap for trap in traps if trap.reason in reasons and (steps or not trap.step))


def _answered_ns(record: Answered) -> int:
    """When it was answered: not before it was taken, whatever a damaged capture says."""
    return max(record.answered_ns, record.taken_ns)


def _is_given_back(record: Answered) -> bool:
    """Whether it was answered when nobody decided any more; a policy that answers so has a rule."""
    plainly = record.answer == PLAIN.name and record.rule is None and not record.late
    return plainly and record.response == acknowledge(record.event.raw, record.event.interface)
