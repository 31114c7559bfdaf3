"""Perfetto: a timeline for https://ui.perfetto.dev, one track per vCPU.

The native format (protobuf), not Chrome's JSON: docs/decisions/0008-perfetto-protobuf.md says why. Field
numbers are those of ``protos/perfetto/trace/perfetto_trace.proto``, which keeps them for ever.
"""

from __future__ import annotations

import heapq
import struct
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

from xenintro.abi import Flag
from xenintro.events import Singlestep
from xenintro.export.perfetto_packets import Packets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xenintro.abi import Interface
    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.export import Options

#: A value of the counters per second is the mean of so long.
WINDOW_NS = 100_000_000

#: Xen has fewer in a guest (HVM_MAX_VCPUS is 128): a slot that says more is damaged. Those share a track.
_MAX_VCPUS = 8192


def export(info: CaptureInfo, events: Iterable[Answered], output: BinaryIO, options: Options) -> None:
    """Write a trace."""
    events = iter(events)
    first = next(events, None)
    begun = info.started_ns if first is None else first.taken_ns
    timeline = _Timeline(Packets(output.write, info, begun), info.nr_vcpus)
    if first is not None:
        timeline.add(first)
    for answered in events:
        timeline.add(answered)
    timeline.end()


class _Timeline:
    """Goes through the requests and the answers in order of time.

    Args:
        packets: what is written.
        nr_vcpus: of the domain, None where unknown.
    """

    def __init__(self, packets: Packets, nr_vcpus: int | None) -> None:
        self._packets = packets
        self._load = _Load(packets, nr_vcpus)
        self._now = 0
        self._count = 0  # of requests: their numbers are those of the flows
        self._paused: dict[int, int] = {}  # vCPU -> the request for which it is paused
        self._ends: list[tuple[int, int, int]] = []  # (when, request, vCPU), a heap
        self._stepping: dict[int, int] = {}  # vCPU -> the request whose answer made it step

    def add(self, answered: Answered) -> None:
        """One request and its answer, not before those that were added."""
        vcpu = answered.event.vcpu_id
        if not 0 <= vcpu < _MAX_VCPUS:
            vcpu = _MAX_VCPUS
        self._answers_until(answered.taken_ns)
        self._go_to(answered.taken_ns)
        if vcpu in self._paused:  # it was never answered, or so it seems: it asks again
            self._resume(vcpu)
        self._count += 1
        self._load.count(vcpu)
        flows = self._flows(answered, vcpu)
        if answered.event.paused:
            self._paused[vcpu] = self._count
            self._packets.begin(self._now, vcpu, answered, flows, len(self._paused))
            if answered.response:
                heapq.heappush(self._ends, (answered.answered_ns, self._count, vcpu))
        else:
            self._packets.instant(self._now, vcpu, answered, flows)
        if answered.answer != "allow" or answered.would is not None or answered.late:
            at = answered.answered_ns if answered.response else self._now
            self._packets.answer(max(at, self._now), _said(answered), answered)

    def end(self) -> None:
        """The last answers. A vCPU whose request has none stays paused: its slice has no end."""
        while self._ends:
            self._answers_until(self._ends[0][0])
        self._load.show()

    def _go_to(self, now: int) -> None:
        if now > self._now:  # in a file that others wrote, time may go back
            self._load.go_to(now, len(self._paused))
            self._now = now

    def _answers_until(self, now: int) -> None:
        ends = self._ends
        while ends and ends[0][0] <= now:
            at, request, vcpu = heapq.heappop(ends)
            self._go_to(at)
            if self._paused.get(vcpu) == request:
                self._resume(vcpu)

    def _resume(self, vcpu: int) -> None:
        del self._paused[vcpu]
        self._packets.end(self._now, vcpu, len(self._paused))

    def _flows(self, answered: Answered, vcpu: int) -> tuple[int, int]:
        """The flow that goes on from here, and the one that ends here: from a request to its single steps."""
        flow = self._stepping.get(vcpu, 0)
        toggles = _toggles(answered.response, answered.event.interface)
        if isinstance(answered.event, Singlestep):
            if not toggles:
                return flow, 0
            self._stepping.pop(vcpu, None)
            return 0, flow
        if not toggles:
            return 0, 0
        self._stepping[vcpu] = self._count
        return self._count, 0


class _Load:
    """The counters that are means over time: events per second, share of the guest's time that was paused."""

    def __init__(self, packets: Packets, nr_vcpus: int | None) -> None:
        self._packets = packets
        self._nr_vcpus = max(nr_vcpus or 1, 1)
        self._begun = self._at = 0
        self._events = self._paused_ns = 0
        self._shown: tuple[int, float] | None = None

    def count(self, vcpu: int) -> None:
        """A request, now."""
        self._events += 1
        self._nr_vcpus = max(self._nr_vcpus, vcpu + 1 if vcpu < _MAX_VCPUS else 0)

    def go_to(self, now: int, waiting: int) -> None:
        """Time passes while so many vCPUs wait."""
        if not self._at:
            self._begun = self._at = now
        for _ in range(2):
            if now < self._begun + WINDOW_NS:
                break
            self._paused_ns += waiting * (self._begun + WINDOW_NS - self._at)
            self.show()
            self._begun = self._at = self._begun + WINDOW_NS
        else:  # the windows between are all like the second
            self._begun = self._at = now - (now - self._begun) % WINDOW_NS
        self._paused_ns += waiting * (now - self._at)
        self._at = now

    def show(self) -> None:
        """Write the counters of the window."""
        events = self._events * 1_000_000_000 // WINDOW_NS
        share = round(100 * self._paused_ns / (WINDOW_NS * self._nr_vcpus), 3)
        if (events, share) != self._shown:
            self._packets.counters(self._begun, events, share)
            self._shown = events, share
        self._events = self._paused_ns = 0


def _said(answered: Answered) -> str:
    """What an instant is called: who was answered what, and by which rule."""
    would = "" if answered.would is None else f" (would {answered.would})"
    rule = "" if answered.rule is None else f" {answered.rule.name}"
    late = " late" if answered.late else ""
    return f"v{answered.event.vcpu_id} {answered.answer}{would}{rule}{late}"


def _toggles(response: bytes, interface: Interface) -> bool:
    """Whether a response turns single-stepping on or off."""
    unpack, offset, bit = _toggle(interface)
    return bool(response) and unpack is not None and bool(unpack(response, offset)[0] & bit)


@cache
def _toggle(interface: Interface) -> tuple[Callable[..., tuple[int, ...]] | None, int, int]:
    """How to read the flags of a response, where, and the bit; None where the interface has no such flag."""
    if not interface.has_flag(Flag.TOGGLE_SINGLESTEP):
        return None, 0, 0
    field = interface.header["flags"]
    unpack = struct.Struct(f"<{field.code}").unpack_from
    return unpack, field.offset, interface.flags_to_wire(Flag.TOGGLE_SINGLESTEP)
