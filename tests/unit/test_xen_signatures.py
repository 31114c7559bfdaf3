from __future__ import annotations

from itertools import pairwise

import pytest
from cffi import FFI

from xenintro.xen import signatures

RELEASES = [(4, minor) for minor in range(6, 23)]


def test_every_row_of_the_table_is_read():
    rows = [line for line in signatures._ROWS.splitlines() if line.startswith("4.")]
    assert len(rows) == sum(len(forms) for forms in signatures.CALLS.values())


@pytest.mark.parametrize("call", signatures.CALLS)
def test_forms_follow_one_another_without_gap_or_overlap(call):
    forms = signatures.CALLS[call]
    assert forms[-1].until == signatures.NEWEST
    for before, after in pairwise(forms):
        assert before.until == (after.since[0], after.since[1] - 1)


@pytest.mark.parametrize("release", RELEASES)
def test_declarations_of_each_release_are_c(release):
    ffi = FFI()
    ffi.cdef(signatures.declarations(release))
    width = 2 if release < (4, 10) else 4
    assert ffi.sizeof("arg_domid_t") == width


@pytest.mark.parametrize("release", RELEASES)
def test_access_default_is_ten_until_a_value_was_inserted_before_it(release):
    names = signatures.access_names(release)
    assert names.index("default") == (10 if release < (4, 20) else 11)
    assert ("r_pw" in names) == (release >= (4, 20))
    assert names.index("rwx") == 7


@pytest.mark.parametrize(
    ("release", "flag"), [((4, 7), None), ((4, 8), 512), ((4, 9), 256), ((4, 22), 256), ((4, 23), 256)]
)
def test_hap_flag_by_release(release, flag):
    assert signatures.hap_flag(release) == flag


def test_a_newer_release_gets_the_newest_forms():
    for call in signatures.CALLS:
        assert signatures.form(call, (4, 23)) == signatures.form(call, signatures.NEWEST)
    assert signatures.form("xc_monitor_io", (4, 17)) is None


def test_first_release_of_a_call_and_of_an_argument():
    assert signatures.first_release("xc_monitor_io") == (4, 18)
    assert signatures.first_release("xc_monitor_write_ctrlreg", "bitmask") == (4, 10)
    assert signatures.first_release("xc_monitor_mov_to_msr", "onchangeonly") == (4, 11)
    assert signatures.first_release("xc_monitor_mov_to_msr", "nonsense") is None
