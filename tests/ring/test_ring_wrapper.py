"""What the typed door adds to ring.c: arguments, messages, lifetimes, and what is not imported."""

from __future__ import annotations

import ctypes
import importlib
import mmap
import struct
import subprocess
import sys

import pytest

from xenintro.errors import AlreadyAnsweredError, DamagedInputError, NotSupportedError
from xenintro.xen.ring import Ring, RingCorruptError

PAGE = 4096


def put_requests(page: memoryview, *requests: bytes, first: int = 0, nr_slots: int = 8) -> None:
    for index, request in enumerate(requests, first):
        at = 64 + (index % nr_slots) * len(request)
        page[at : at + len(request)] = request
    struct.pack_into("=I", page, 0, first + len(requests))


@pytest.mark.parametrize("make", [bytearray, lambda size: mmap.mmap(-1, size)])
def test_round_trip_on_a_buffer(make) -> None:
    page = make(PAGE)
    ring = Ring(page, 400, 8)
    ring.init()
    assert struct.unpack_from("=4I", page) == (0, 1, 0, 1)
    put_requests(memoryview(page), b"a" * 400, b"b" * 400)
    assert ring.pending() == 2
    assert ring.take() == b"a" * 400
    assert (ring.pending(), ring.unanswered, ring.req_cons, ring.rsp_prod_pvt) == (1, 1, 1, 0)
    ring.put(b"A" * 400)
    assert struct.unpack_from("=4I", page) == (2, 2, 0, 1)
    ring.publish()
    assert struct.unpack_from("=4I", page) == (2, 2, 1, 1)
    assert page[64:464] == b"A" * 400
    assert (ring.nr_slots, ring.slot_size) == (8, 400)


def test_round_trip_on_an_address() -> None:
    page = ctypes.create_string_buffer(PAGE + 4)
    ring = Ring(-(-ctypes.addressof(page) // 4) * 4, 40, 64)
    ring.init()
    assert ring.pending() == 0
    assert ring.take() is None


def test_what_was_taken_is_a_copy() -> None:
    page = bytearray(PAGE)
    ring = Ring(page, 400, 8)
    put_requests(memoryview(page), b"a" * 400, b"b" * 400)
    first = ring.take()
    page[64:464] = bytes(400)
    assert (first, ring.take()) == (b"a" * 400, b"b" * 400)


def test_the_buffer_cannot_go_away() -> None:
    page = bytearray(PAGE)
    ring = Ring(page, 400, 8)
    with pytest.raises(BufferError):
        page.clear()
    assert ring.pending() == 0


@pytest.mark.parametrize(
    ("page", "slot_size", "nr_slots", "indices"),
    [
        (bytearray(PAGE - 1), 400, 8, (0, 0)),
        (memoryview(bytearray(PAGE + 1))[1:], 400, 8, (0, 0)),
        (0, 400, 8, (0, 0)),
        (bytearray(PAGE), 400, 16, (0, 0)),
        (bytearray(PAGE), 400, 7, (0, 0)),
        (bytearray(PAGE), 0, 8, (0, 0)),
        (bytearray(PAGE), 400, 8, (9, 0)),
        (bytearray(PAGE), 400, 8, (0, 1)),
    ],
)
def test_no_such_ring(page, slot_size, nr_slots, indices) -> None:
    with pytest.raises(ValueError, match=r"ring"):
        Ring(page, slot_size, nr_slots, req_cons=indices[0], rsp_prod_pvt=indices[1])


def test_a_page_that_cannot_be_written() -> None:
    with pytest.raises(BufferError):
        Ring(memoryview(bytes(PAGE)), 400, 8)


def test_an_answer_to_nothing() -> None:
    page = bytearray(PAGE)
    ring = Ring(page, 400, 8)
    with pytest.raises(AlreadyAnsweredError, match="no request is waiting"):
        ring.put(bytes(400))
    assert not any(page)


@pytest.mark.parametrize("size", [0, 399, 401])
def test_an_answer_of_the_wrong_size(size: int) -> None:
    page = bytearray(PAGE)
    ring = Ring(page, 400, 8)
    put_requests(memoryview(page), bytes(400))
    ring.take()
    with pytest.raises(ValueError, match="400 bytes"):
        ring.put(bytes(size))
    assert ring.unanswered == 1


def test_corrupt_says_what_is_wrong_in_three_lines() -> None:
    ring = Ring(bytearray(struct.pack("=I", 0x2A).ljust(PAGE, b"\0")), 400, 8, req_cons=2)
    with pytest.raises(RingCorruptError) as caught:
        ring.take()
    assert isinstance(caught.value, DamagedInputError)
    assert caught.value.exit_code == 7
    assert caught.value.lines() == [
        "error: the ring page is damaged: nothing was taken from it",
        "  req_prod 0x2a is not within 6 after req_cons 0x2",
        "  end what else writes to this page; for a guest that hangs: xenintro rescue --domid ID",
    ]


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "xenintro.xen.ring")
    monkeypatch.setitem(sys.modules, "xenintro.xen._native", None)
    with pytest.raises(NotSupportedError) as caught:
        importlib.import_module("xenintro.xen.ring")
    assert "xenintro.xen._native" in caught.value.why


def test_the_library_alone_loads_no_native_code() -> None:
    code = "import sys, xenintro; print([m for m in sys.modules if 'cffi' in m or '_native' in m])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_what_is_answered_is_recorded_before_it_is_shown() -> None:
    record = memoryview(mmap.mmap(-1, 16 + 1024 * 1040))
    for base in (0, 3):
        page = bytearray(PAGE)
        ring = Ring(page, 400, 8)
        ring.init()
        ring.record(record)
        put_requests(memoryview(page), *(bytes([n]) * 400 for n in range(3)))
        for n in range(3):
            ring.take()
            ring.put(bytes([0x80 + n]) * 400)
            assert struct.unpack_from("=4I", record) == (base + n + 1, base, 0, base)
            at = 16 + (base + n) * 1040
            taken_ns, answered_ns, request, response = struct.unpack_from("=QQ512s512s", record, at)
            assert 0 < taken_ns <= answered_ns
            assert request == bytes([n]) * 400 + bytes(112)
            assert response == bytes([0x80 + n]) * 400 + bytes(112)
        ring.publish()
        assert struct.unpack_from("=4I", record) == (base + 3, base + 3, 0, base)


def test_a_record_needs_room() -> None:
    with pytest.raises(ValueError, match="a record has"):
        Ring(bytearray(PAGE), 400, 8).record(memoryview(bytearray(100)))
    with pytest.raises(ValueError, match="too long"):
        Ring(bytearray(PAGE), 600, 4).record(memoryview(bytearray(16 + 1024 * 1040)))
