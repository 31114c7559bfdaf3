"""What pictures count: busiest keys, strips of time, in bounded numbers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures.captures import UNHURRIED, R, W, X, access, answered
from xenintro.export import busiest, strip
from xenintro.export.busiest import Busiest, Counted
from xenintro.export.digest import Digest
from xenintro.export.heat import Heat
from xenintro.export.strip import Strip


@settings(UNHURRIED)
@given(st.lists(st.integers(0, 30), max_size=200))
def test_counts_are_exact_up_to_what_was_forgotten(keys: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(busiest, "CAPACITY", 5)
        counted = Busiest(Counted)
        for key in keys:
            counted.count(key)
    truth = Counter(keys)
    assert len(counted) <= 10
    for key, record in counted.items():
        assert truth[key] - counted.short <= record.count <= truth[key]
    assert len(truth) > 10 or (counted.short == 0 and len(counted) == len(truth))
    kept = dict(counted.items())
    assert all(count <= counted.short for key, count in truth.items() if key not in kept)


@settings(UNHURRIED)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-100, 5_000_000), st.integers(0, 10**14)),
            st.integers(-5, 10_000_000),
            st.sampled_from(["cpuid", "guest_request", "mem_access"]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_a_strip_has_all_events_and_pauses(script: list[tuple[int, int, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strip, "MAX_COLUMNS", 8)
        counted = Strip()
        for at, pause, reason in script:
            counted.add(answered(reason, at, pause=pause, paused=reason != "guest_request"))
    assert 1 <= counted.columns <= 8
    events = sum((counted.events(column) for column in range(counted.columns)), Counter())
    assert events == Counter(reason for _, _, reason in script)
    paused = sum(counted.paused_ns(column) for column in range(counted.columns))
    assert paused == sum(max(pause, 0) for _, pause, reason in script if reason != "guest_request")


@pytest.mark.parametrize(
    ("kinds", "unpacked"),
    [([W, X], True), ([X, W], False), ([R, X], False), ([W | X], False), ([W, R, X], True)],
)
def test_unpacked_is_written_and_executed_afterwards(kinds: list[int], unpacked: bool) -> None:
    heat = Heat()
    for at, kind in enumerate(kinds):
        heat.add(access(at, 0x10, kind))
        heat.add(access(at, 0x11, R))
    assert [gfn for gfn, _ in heat.unpacked()] == [0x10] * unpacked


def test_the_longest_pauses_are_told() -> None:
    digest = Digest()
    for at in range(50):
        digest.add(answered("cpuid", 1_000 * at, pause=at % 25, vcpu=at % 3))
    assert [one.pause_ns for one in digest.longest()] == [24, 24, 23, 23, 22, 22, 21, 21, 20, 20]
    assert [one.taken_ns for one in digest.longest()][:2] == sorted(
        one.taken_ns for one in digest.longest()[:2]
    )
    assert digest.vcpus(None) == 3
    assert digest.vcpus(8) == 8
