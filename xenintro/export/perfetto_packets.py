"""The packets of a Perfetto trace: tracks, slices, instants, counters."""

from __future__ import annotations

import enum
from functools import cache
from typing import TYPE_CHECKING

from xenintro.events import MemAccess
from xenintro.export.code import code_address, counter_name
from xenintro.export.protobuf import double, fixed64, message, number, text, varint
from xenintro.sinks.jsonl import payload_members

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.answered import Answered
    from xenintro.capture.info import CaptureInfo
    from xenintro.events import Event

#: TrackEvent.Type.
_BEGIN, _END, _INSTANT, _COUNTER = (number(9, kind) for kind in (1, 2, 3, 4))

#: BuiltinClock.
_BOOTTIME, _REALTIME = 6, 1

#: trusted_packet_sequence_id 1, sequence_flags SEQ_NEEDS_INCREMENTAL_STATE.
_SEQUENCE = number(10, 1) + number(13, 2)

#: Members of DebugAnnotation: a number, and one that is shown as an address.
_UINT, _POINTER = 3, 7

#: InternedData: names of events, names of arguments, texts.
_EVENT_NAMES, _ARGUMENT_NAMES, _TEXTS = 2, 3, 29

#: The members of TrackEvent and DebugAnnotation that say them by number, and in full.
_REFERENCES = {_EVENT_NAMES: (10, 23), _ARGUMENT_NAMES: (1, 10), _TEXTS: (17, 6)}

#: Keys of a payload that are not shown: the letters of ``access`` say what the flags say.
_LEFT_OUT = frozenset({"flags", "gla_valid", "fault_with_gla", "fault_in_gpt"})

#: Keys whose numbers are counts; all others are addresses, register values and the like.
_COUNTS = frozenset({"index", "insn_length", "type", "bytes", "in", "str", "is_write"})

#: Texts that are written once and then called by number. A healthy capture has fewer; a damaged slot can
#: name any of four billion control registers, and those are written out.
_MAX_INTERNED = 4096


class Track(enum.IntEnum):
    """Numbers of the tracks; a vCPU's is `VCPU` plus its id."""

    DOMAIN = 1
    ANSWERS = 2
    EVENTS = 3
    WAITING = 4
    PAUSED = 5
    VCPU = 16


class Packets:
    """Writes packets; times are nanoseconds since the epoch.

    Args:
        write: where bytes go.
        info: of the capture.
        begun: time of the first event.
    """

    def __init__(self, write: Callable[[bytes], object], info: CaptureInfo, begun: int) -> None:
        self._write = write
        begun = min(begun, info.started_ns or begun)
        # dom0's monotonic clock, where known: the trace fits beside others of the host.
        self._origin = begun - info.monotonic_ns
        self._vcpus: dict[int, bytes] = {}
        self._known: dict[tuple[int | str, str], bytes] = {}
        self._new = b""
        self._head(info, begun)

    def begin(self, at: int, vcpu: int, answered: Answered, flows: tuple[int, int], waiting: int) -> None:
        """A vCPU is paused; so many wait now. A flow is the number of a request, 0 for none."""
        head = _BEGIN + self._vcpu(vcpu) + self._interned(_EVENT_NAMES, answered.event.reason)
        self._event(at, head + b"\x60" + varint(waiting) + _flows(*flows), answered)

    def end(self, at: int, vcpu: int, waiting: int) -> None:
        """It runs again; so many wait still."""
        self._event(at, _END + self._vcpu(vcpu) + b"\x60" + varint(waiting))  # extra_counter_values (12)

    def instant(self, at: int, vcpu: int, answered: Answered, flows: tuple[int, int]) -> None:
        """A vCPU had an event for which it does not wait."""
        head = _INSTANT + self._vcpu(vcpu) + self._interned(_EVENT_NAMES, answered.event.reason)
        self._event(at, head + _flows(*flows), answered)

    def answer(self, at: int, name: str, answered: Answered) -> None:
        """An answer that is worth a look."""
        self._event(at, _INSTANT + number(11, Track.ANSWERS) + text(23, name), answered)

    def counters(self, at: int, events: int, share: float) -> None:
        """Events per second, and per cent of the guest's time that was paused, from here on."""
        self._event(at, _COUNTER + number(11, Track.EVENTS) + number(30, events))
        self._event(at, _COUNTER + number(11, Track.PAUSED) + double(44, share))

    def _head(self, info: CaptureInfo, begun: int) -> None:
        """What comes before the first event: clocks, defaults, the tracks that are always there."""
        pairs = ((_BOOTTIME, begun - self._origin), (_REALTIME, begun))
        clocks = b"".join(message(1, number(1, clock) + number(2, time)) for clock, time in pairs)
        self._packet(message(6, clocks))
        # SEQ_INCREMENTAL_STATE_CLEARED; what `number(12, ...)` of an event counts.
        defaults = message(11, number(31, Track.WAITING))
        self._packet(message(59, defaults) + number(10, 1) + number(13, 1))
        domid = "" if info.domid is None else f" (domid {info.domid})"
        self._track(Track.DOMAIN, f"{info.domain or 'domain'}{domid}", number(11, 3))  # children: EXPLICIT
        self._child(Track.ANSWERS, "answers other than allow")
        self._child(Track.EVENTS, "events per second", message(8, text(6, "events/s")))
        self._child(Track.WAITING, "requests waiting", message(8, text(6, "requests")))
        self._child(Track.PAUSED, "vCPU time paused", message(8, text(6, "%")))

    def _vcpu(self, vcpu: int) -> bytes:
        """The field that says a vCPU's track, which is announced first."""
        known = self._vcpus.get(vcpu)
        if known is None:
            track = Track.VCPU + vcpu
            self._child(track, f"vCPU {vcpu}")
            known = self._vcpus[vcpu] = number(11, track)
        return known

    def _child(self, track: int, name: str, more: bytes = b"") -> None:
        self._track(track, name, number(5, Track.DOMAIN) + number(12, track) + more)

    def _track(self, track: int, name: str, more: bytes) -> None:
        self._packet(message(60, number(1, track) + text(2, name) + more))

    def _event(self, at: int, event: bytes, answered: Answered | None = None) -> None:
        if answered is not None:
            event += self._arguments(answered)
        new, self._new = self._new, b""
        head = (
            b"\x40" + varint(max(at - self._origin, 0)) + (_SEQUENCE + message(12, new) if new else _SEQUENCE)
        )
        self._packet(head + b"\x5a" + varint(len(event)) + event)  # timestamp (8), track_event (11)

    def _packet(self, packet: bytes) -> None:
        self._write(b"\x0a" + varint(len(packet)) + packet)

    def _arguments(self, answered: Answered) -> bytes:
        """The payload, where, and what became of it, under the names of the JSON line."""
        event = answered.event
        out = b""
        for name, member, field in _members(type(event)):
            value = getattr(event, member)
            if value is None or (member == "gla" and isinstance(event, MemAccess) and not event.gla_valid):
                continue
            out += self._text(name, value) if isinstance(value, str) else self._number(name, value, field)
        address = code_address(event)
        if address is not None:
            out += self._number(f"regs.{counter_name(event.interface)}", address, _POINTER)
        out += self._text("answer", answered.answer)
        if answered.rule is not None:
            out += self._text("rule", answered.rule.name)
        if answered.would is not None:
            out += self._text("would", answered.would)
        pause_ns = answered.pause_ns
        if pause_ns is not None:
            out += self._number("pause_ns", max(pause_ns, 0), _UINT)
        return out

    def _number(self, name: str, value: int, field: int) -> bytes:
        known = self._known.get((field, name))
        if known is None:
            known = self._interned(_ARGUMENT_NAMES, name) + number(field, 0)[:-1]
            self._known[field, name] = known
        content = known + varint(value)
        return b"\x22" + varint(len(content)) + content  # debug_annotations (4)

    def _text(self, name: str, value: str) -> bytes:
        known = self._known.get((name, value))
        if known is None:
            known = message(4, self._interned(_ARGUMENT_NAMES, name) + self._interned(_TEXTS, value))
            if len(self._known) < _MAX_INTERNED:
                self._known[name, value] = known
        return known

    def _interned(self, kind: int, value: str) -> bytes:
        """The field that says a text: by number, or in full."""
        known = self._known.get((kind, value))
        if known is not None:
            return known
        by_number, in_full = _REFERENCES[kind]
        if len(self._known) >= _MAX_INTERNED:
            return text(in_full, value)
        iid = len(self._known) + 1
        self._new += message(kind, number(1, iid) + text(2, value))
        known = self._known[kind, value] = number(by_number, iid)
        return known


@cache
def _members(kind: type[Event]) -> tuple[tuple[str, str, int], ...]:
    """The arguments of a payload: name, attribute, field of DebugAnnotation for a number."""
    return tuple(
        (f"{kind.reason}.{key}", member, _UINT if key in _COUNTS else _POINTER)
        for key, member in payload_members(kind).items()
        if key not in _LEFT_OUT
    )


def _flows(on: int, here: int) -> bytes:
    """flow_ids of a flow that goes on, terminating_flow_ids of one that ends here."""
    return (fixed64(47, on) if on else b"") + (fixed64(48, here) if here else b"")
