"""The trace for Perfetto, read back with the schema of its own package and the rules of its importer.

The trace processor itself is a program that the package downloads when it is first used; what it would refuse
(a track, a text or a sequence that was not announced) is checked here.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures.captures import BEGUN, INFO, LAYOUT, STEP, UNHURRIED, access, answered, unpacker
from xenintro.capture.info import CaptureInfo
from xenintro.export import Options
from xenintro.export.perfetto import WINDOW_NS, export
from xenintro.response import ALLOWED, allow

schema = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")

BARE = CaptureInfo(abi="vm_event-7")


class Slice(NamedTuple):
    """A slice or, with a length of None, one without an end."""

    track: str
    name: str
    begun: int
    length: int | None
    arguments: dict
    on: list
    here: list


class Trace:
    """What Perfetto would show: times in nanoseconds since the epoch."""

    def __init__(self, data: bytes) -> None:
        trace = schema.Trace()
        trace.ParseFromString(data)
        trace.DiscardUnknownFields()
        assert trace.ByteSize() == len(data)
        self.tracks: dict[int, str] = {}
        self.slices: list[Slice] = []
        self.instants: list[Slice] = []
        self.counters: dict[str, list[tuple[int, float]]] = {}
        self._texts: dict[tuple[str, int], str] = {}
        self._open: dict[int, Slice] = {}
        self._cleared = False
        self._clock = 0
        for packet in trace.packet:
            self._read(packet)
        for track in sorted(self._open):
            self.slices.append(self._open[track])

    def _read(self, packet) -> None:
        if packet.HasField("clock_snapshot"):
            clocks = {clock.clock_id: clock.timestamp for clock in packet.clock_snapshot.clocks}
            self._clock = clocks[1] - clocks[6]
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            assert descriptor.uuid not in self.tracks
            assert not descriptor.parent_uuid or descriptor.parent_uuid in self.tracks
            self.tracks[descriptor.uuid] = descriptor.name
        if packet.sequence_flags & 1:
            self._cleared = True
            (self._waiting,) = packet.trace_packet_defaults.track_event_defaults.extra_counter_track_uuids
        for kind in ("event_names", "debug_annotation_names", "debug_annotation_string_values"):
            for one in getattr(packet.interned_data, kind):
                assert (kind, one.iid) not in self._texts
                self._texts[kind, one.iid] = (
                    one.str.decode() if kind == "debug_annotation_string_values" else one.name
                )
        if packet.HasField("track_event"):
            assert self._cleared
            assert packet.sequence_flags == 2
            assert packet.trusted_packet_sequence_id == 1
            self._event(packet.timestamp + self._clock, packet.track_event)

    def _event(self, at: int, event) -> None:
        track = self.tracks[event.track_uuid]
        for value in event.extra_counter_values:
            self.counters.setdefault(self.tracks[self._waiting], []).append((at, value))
        if event.type == event.TYPE_COUNTER:
            value = (
                event.double_counter_value if event.HasField("double_counter_value") else event.counter_value
            )
            self.counters.setdefault(track, []).append((at, value))
        elif event.type == event.TYPE_SLICE_END:
            begun = self._open.pop(event.track_uuid)
            self.slices.append(begun._replace(length=at - begun.begun))
        else:
            name = event.name or self._texts["event_names", event.name_iid]
            arguments = {self._name(one): self._value(one) for one in event.debug_annotations}
            flows = list(event.flow_ids), list(event.terminating_flow_ids)
            if event.type == event.TYPE_INSTANT:
                self.instants.append(Slice(track, name, at, None, arguments, *flows))
            else:
                assert event.type == event.TYPE_SLICE_BEGIN
                assert event.track_uuid not in self._open  # a vCPU is paused once at a time
                self._open[event.track_uuid] = Slice(track, name, at, None, arguments, *flows)

    def _name(self, annotation) -> str:
        return annotation.name or self._texts["debug_annotation_names", annotation.name_iid]

    def _value(self, annotation):
        kind = annotation.WhichOneof("value")
        value = getattr(annotation, kind)
        return self._texts["debug_annotation_string_values", value] if kind == "string_value_iid" else value


def traced(events, info: CaptureInfo = INFO) -> Trace:
    output = io.BytesIO()
    export(info, events, output, Options())
    return Trace(output.getvalue())


def test_one_slice_per_pause() -> None:
    events = list(unpacker(3_000))
    trace = traced(events)
    paused = [one for one in events if one.event.paused]
    slices = sorted(trace.slices, key=lambda one: (one.begun, one.track))
    assert [(one.begun, one.length) for one in slices] == sorted(
        (one.taken_ns, one.pause_ns) for one in paused
    )
    assert sorted(one.name for one in slices) == sorted(one.event.reason for one in paused)
    assert set(trace.tracks.values()) == {
        *("win10 (domid 5)", "answers other than allow", "vCPU 0", "vCPU 1"),
        *("events per second", "requests waiting", "vCPU time paused"),
    }


def test_arguments_are_named_as_everywhere() -> None:
    (one,) = traced([access(0, 0x1A2B3, 0b1_1010, offset=0x4C8, rip=0xFFFFF800_00123456)]).slices
    assert one.arguments == {
        "mem_access.gfn": 0x1A2B3,
        "mem_access.offset": 0x4C8,
        "mem_access.gla": 0x7FF6_0000_0000 + 0x1A2B34C8,
        "mem_access.access": "w",
        "regs.rip": 0xFFFFF800_00123456,
        "answer": "allow",
        "pause_ns": 20_000,
    }


def test_an_address_that_the_request_does_not_hold_is_not_shown() -> None:
    (one,) = traced([access(0, 0x1A2B3, 0b10)]).slices
    assert "mem_access.gla" not in one.arguments


def test_other_answers_are_instants() -> None:
    events = list(unpacker(3_000))
    said = [one.name for one in traced(events).instants if one.track == "answers other than allow"]
    assert len(said) == sum(one.answer != "allow" or one.would is not None or one.late for one in events)
    assert {"v0 deny freeze-lstar", "v1 allow (would deny) watch-unpacked"} <= set(said)
    assert any(name.endswith(" allow freeze-lstar late") for name in said)


def test_asynchronous_events_are_instants_of_their_vcpu() -> None:
    trace = traced([answered("guest_request", 5, vcpu=1, paused=False)])
    assert not trace.slices
    assert [(one.track, one.name) for one in trace.instants] == [("vCPU 1", "guest_request")]


def test_a_flow_goes_from_a_request_to_its_last_single_step() -> None:
    step = answered("singlestep", 100_000)
    trace = traced(
        [
            access(0, 1, 0b100, response=STEP),
            answered("cpuid", 10_000, vcpu=1),
            step._replace(taken_ns=BEGUN + 50_000, answered_ns=BEGUN + 60_000),
            answered("singlestep", 100_000, response=allow(step.event)),
            answered("singlestep", 200_000),
        ]
    )
    flows = [(one.name, one.on, one.here) for one in sorted(trace.slices, key=lambda one: one.begun)]
    assert flows == [
        ("mem_access", [1], []),
        ("cpuid", [], []),
        ("singlestep", [1], []),
        ("singlestep", [], [1]),
        ("singlestep", [], []),
    ]


def test_a_request_that_was_never_answered_has_no_end() -> None:
    trace = traced([answered("cpuid", 0), answered("cpuid", 50_000, vcpu=1, response=None)])
    assert [(one.track, one.length) for one in trace.slices] == [("vCPU 0", 20_000), ("vCPU 1", None)]
    assert [one.name for one in trace.instants] == ["v1 unanswered"]


def test_requests_that_wait_at_once_are_counted() -> None:
    trace = traced([answered("cpuid", 0, pause=100), answered("cpuid", 10, vcpu=1, pause=20)])
    assert trace.counters["requests waiting"] == [
        (BEGUN, 1),
        (BEGUN + 10, 2),
        (BEGUN + 30, 1),
        (BEGUN + 100, 0),
    ]


def test_the_share_of_time_is_that_of_all_vcpus() -> None:
    half = [answered("cpuid", 0, pause=WINDOW_NS // 2), answered("cpuid", 50 * WINDOW_NS)]
    trace = traced(half)
    assert trace.counters["vCPU time paused"][:2] == [(BEGUN, 25.0), (BEGUN + WINDOW_NS, 0.0)]
    assert trace.counters["events per second"] == [
        *((BEGUN, 10), (BEGUN + WINDOW_NS, 0), (BEGUN + 50 * WINDOW_NS, 10)),
    ]


@pytest.mark.parametrize("info", [INFO, BARE])
def test_captures_with_next_to_nothing(info: CaptureInfo) -> None:
    assert traced([], info).slices == []
    (one,) = traced([answered("cpuid", 7)], info).slices
    assert (one.begun, one.length) == (BEGUN + 7, 20_000)


def test_hundreds_of_vcpus_and_impossible_ones() -> None:
    events = [answered("cpuid", 10 * vcpu, vcpu=vcpu) for vcpu in [*range(500), 2**32 - 1, 2**31]]
    trace = traced(events, BARE)
    assert len({one.track for one in trace.slices}) == 501
    assert sum(one.track == "vCPU 8192" for one in trace.slices) == 2


def test_texts_of_a_damaged_file_are_not_all_kept() -> None:
    def registers():
        for number in range(10_000):
            yield answered("write_ctrlreg", 10 * number, payload={"index": 2**31 + number})

    trace = traced(registers(), BARE)
    assert trace.slices[-1].arguments["write_ctrlreg.register"] == f"ctrlreg{2**31 + 9_999}"
    assert len(trace._texts) <= 4096


def test_names_that_are_no_unicode() -> None:
    info = CaptureInfo(abi=LAYOUT.id, domain="\udcff", domid=3)
    assert "? (domid 3)" in traced([], info).tracks.values()


@settings(UNHURRIED)
@given(
    st.lists(
        st.tuples(
            st.integers(-50, 300),  # time since the last request: now and then it goes back
            st.integers(0, 3),
            st.integers(-20, 2_000),
            st.sampled_from(["cpuid", "singlestep", "guest_request"]),
            st.sampled_from([ALLOWED, STEP, None]),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_whatever_the_times_the_trace_is_sound(script) -> None:
    at, events = 1_000, []
    for delta, vcpu, pause, reason, response, paused in script:
        at = max(at + delta, 0)
        events.append(answered(reason, at, vcpu=vcpu, pause=pause, response=response, paused=paused))
    trace = traced(events)
    assert len(trace.slices) == sum(one.event.paused for one in events)
    assert all(one.length is None or one.length >= 0 for one in trace.slices)
    waiting = trace.counters.get("requests waiting", [])
    assert [at for at, _ in waiting] == sorted(at for at, _ in waiting)
    assert all(0 <= value <= 4 for _, value in waiting)
