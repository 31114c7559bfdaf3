"""The list behind -e: what it means, and what it says about mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.slots import make_slot
from xenintro.abi import interface
from xenintro.codec import decode
from xenintro.errors import NotSupportedError, UsageError, XenintroError
from xenintro.traps import NAMES, asked_for, parse_traps

V7 = interface("vm_event-7")


def test_every_form() -> None:
    traps = parse_traps(
        "cr3, cr4:async:onchange:mask=0x80,msr:LSTAR:onchange,msr:0x174,cpuid,mem:wr@0x104-0x10f:step"
    )
    cr3, cr4, lstar, number, cpuid, mem = traps
    assert (cr3.reason, cr3.index, cr3.sync, cr3.mask) == ("write_ctrlreg", 1, True, 0)
    assert (cr4.index, cr4.sync, cr4.onchange, cr4.mask) == (2, False, True, 0x80)
    assert (lstar.msr, lstar.onchange, number.msr) == (0xC0000082, True, 0x174)
    assert cpuid.reason == "cpuid"
    assert (mem.access, mem.first_gfn, mem.last_gfn, mem.page_count, mem.step) == (
        "rw",
        0x104,
        0x10F,
        12,
        True,
    )


@pytest.mark.parametrize("name", [name for name in NAMES if "@" not in name])
def test_every_name_is_a_trap(name: str) -> None:
    assert len(parse_traps(name)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cr9", "did you mean cr"),
        ("guest_request", "did you mean guest-request"),
        ("msr:lsatr", "did you mean msr:lstar"),
        ("cpuid:async", "takes no modifier"),
        ("cr3:sink", "takes :async"),
        ("mem:w", "ACCESS@GFN"),
        ("mem:q@1", "ACCESS@GFN"),
        ("mem:w@2-1", "below the first"),
        ("cr3,cr3", "as one"),
        ("mem:w@1-5,mem:r@5", "as one"),
        ("msr:0xzz", "not a number"),
        (",", "no events"),
    ],
)
def test_mistakes_are_explained(text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_traps(text)
    assert words in "\n".join(error.value.lines())


def test_io_is_refused_because_nothing_lets_it_pass() -> None:
    with pytest.raises(NotSupportedError, match="cannot be trapped"):
        parse_traps("io")


def test_vmexit_is_only_watched() -> None:
    assert not parse_traps("vmexit")[0].sync


@given(st.text(alphabet="cr034msr:lta,memwx@0x1-5=cpuid", max_size=40))
def test_any_text_is_a_list_or_a_clear_error(text: str) -> None:
    problem: XenintroError | None = None
    try:
        parse_traps(text)
    except XenintroError as error:
        problem = error
    assert problem is None or len(problem.lines()) >= 2


def test_what_was_not_asked_for_is_told_apart() -> None:
    wanted = asked_for(parse_traps("mem:r@0x10,cr3,msr:star"))
    page = {"gfn": 0x10, "flags": 1}
    assert wanted(decode(make_slot(V7, 1, payload=page), V7))
    assert not wanted(decode(make_slot(V7, 1, payload=page | {"flags": 2}), V7))
    assert not wanted(decode(make_slot(V7, 1, payload=page | {"gfn": 0x11}), V7))
    assert wanted(decode(make_slot(V7, 4, payload={"index": 1}), V7))
    assert not wanted(decode(make_slot(V7, 4, payload={"index": 2}), V7))
    assert wanted(decode(make_slot(V7, 5, payload={"msr": 0xC0000081}), V7))
    assert not wanted(decode(make_slot(V7, 5, payload={"msr": 0xC0000082}), V7))
    assert not wanted(decode(make_slot(V7, 7), V7))
    assert wanted(decode(make_slot(V7, 0x7F), V7))
