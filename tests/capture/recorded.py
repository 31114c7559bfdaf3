"""Sessions to replay: a live source without Xen, its deadline thread included, and what it recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xenintro import legality
from xenintro.codec import decode, encode
from xenintro.source import Missed, Request, SourceEnded
from xenintro.xen.stepping import Stepping, StepState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.abi import Interface
    from xenintro.events import Event
    from xenintro.legality import Machine
    from xenintro.response import Response
    from xenintro.traps import Trap


class Fate(NamedTuple):
    """What becomes of a request: the loop answers it in time unless told otherwise.

    ``late``: the deadline thread answers it; ``taken``: the loop had it already; ``claimed``: and was
    granted to open a page for it, if it asked.
    """

    raw: bytes
    late: bool = False
    taken: bool = False
    claimed: bool = False


class FakeMonitor:
    """What `xenintro.xen.monitor.Monitor` does with requests, on a clock that goes on when it is read."""

    def __init__(
        self, interface: Interface, traps: tuple[Trap, ...], machine: Machine, batches: list[list[Fate]]
    ) -> None:
        self.interface = interface
        self.pages: dict[int, str] = {}
        self._stepping = Stepping(traps, self.pages.__setitem__, self._claim, can_step=machine.singlestep)
        self._machine = machine
        self._batches = batches
        self._ready: list[Fate] = []
        self._at_hand = Fate(b"")
        self._claimed = False  # the loop has claimed the request at hand
        self._missed: list[Missed] = []
        self._unlearned: list[tuple[Event, bool]] = []
        self._given = 0
        self._now_ns = 1_000_000_000_000

    def clock(self) -> int:
        self._now_ns += 1_000
        return self._now_ns

    def wait(self, timeout: float) -> None:
        self._learn()
        if not self._batches:
            raise SourceEnded
        self._ready = self._batches.pop(0)

    def requests(self) -> Iterator[Request]:
        while self._ready:
            self._at_hand = fate = self._ready.pop(0)
            self._claimed = False
            if fate.late and not fate.taken:
                self._let(fate)
            else:
                self._given += 1
                yield Request(fate.raw, self)

    def check(self, event: Event, response: Response, *, sent: bool = True) -> None:
        legality.check(event, response, self._machine)

    def prepare(self, event: Event, response: Response | None) -> Response:
        self._learn()
        return self._stepping.prepare(event, response)

    def put(self, response: bytes) -> bool:
        if self._at_hand.late:
            self._let(self._at_hand)
        return not self._at_hand.late

    def flush(self) -> int:
        return 0

    def missed(self) -> list[Missed]:
        missed, self._missed = self._missed, []
        self._given = 0
        return missed

    def steps(self) -> StepState:
        self._learn()
        return self._stepping.state

    def _claim(self) -> bool:
        self._claimed = not self._at_hand.late or self._at_hand.claimed
        return self._claimed

    def _let(self, fate: Fate) -> None:
        event = decode(fate.raw, self.interface)
        sent = encode(event, self._stepping.late(event))
        before = self._given - fate.taken
        since_ns, answered_ns = self.clock(), self.clock()
        self._missed.append(Missed(event, sent, since_ns, answered_ns, before, fate.taken))
        self._unlearned.append((event, self._claimed))

    def _learn(self) -> None:
        while self._unlearned:
            event, claimed = self._unlearned.pop(0)
            self._stepping.missed(event, claimed=claimed)
