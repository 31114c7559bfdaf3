"""The domctl of the deny: which version is tried, and what is said where there is none."""

from __future__ import annotations

import errno
import struct

import pytest

from tests.unit.test_xen_probe import fake, hypercalls
from xenintro.errors import NotSupportedError
from xenintro.xen import signatures
from xenintro.xen.domctl import check_deny, defer_writes


def prepared(release=(4, 17), capabilities=0x7F, **known):
    xen, xc = fake(release)
    xen.answers |= hypercalls(xc.library.ffi, capabilities, **known)
    return xen, xc


def domctls(xen):
    return sum(call[0] == "xencall1" for call in xen.calls)


@pytest.mark.parametrize("release", signatures.DOMCTL_VERSION)
def test_the_version_of_a_release_is_tried_first(release):
    xen, xc = prepared(release, versions=[signatures.DOMCTL_VERSION[release]])
    check_deny(xc, 5)
    assert domctls(xen) == 1


def test_a_tree_of_another_version_is_found_by_asking():
    xen, xc = prepared((4, 17), versions=[0x12])
    check_deny(xc, 5)
    assert domctls(xen) == len(set(signatures.DOMCTL_VERSION.values()))


@pytest.mark.parametrize("release", [(4, 6), (4, 13)])
def test_nothing_is_needed_where_writes_wait_anyway(release):
    xen, xc = prepared(release, versions=[])
    check_deny(xc, 5)
    assert not domctls(xen)


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({"versions": []}, "no domctl of a version that is known"),
        ({"capabilities": 0x1F}, "makes no sense"),
    ],
)
def test_refused(known, why):
    _, xc = prepared(**known)
    with pytest.raises(NotSupportedError) as refusal:
        check_deny(xc, 5)
    assert why in refusal.value.why


@pytest.mark.parametrize(
    ("call", "answer", "why"),
    [
        ("xencall1", (-1, errno.EPERM), "Xen refuses it"),
        ("xencall1", (-1, errno.EOPNOTSUPP), "does not know it"),
        ("xencall_open", (0, errno.ENOENT), "ENOENT"),
        ("xencall_alloc_buffer", (0, errno.ENOMEM), "no memory left"),
    ],
)
def test_what_fails_is_said(call, answer, why):
    xen, xc = prepared()
    xen.answers[call] = answer
    with pytest.raises(NotSupportedError) as refusal:
        check_deny(xc, 5)
    assert why in refusal.value.why


def test_no_libxencall():
    xen, _ = fake()
    xen._forms.pop("xencall1")
    with pytest.raises(NotSupportedError, match="cannot be denied"):
        check_deny(xen.xc(), 5)


def test_the_switch_is_the_fourth_operation_and_what_was_opened_is_closed():
    xen, xc = prepared()
    buffer = xc.library.ffi.buffer(xen.answers["xencall_alloc_buffer"](None, 144), 144)
    defer_writes(xc, 5)
    assert struct.unpack_from("<IIHxxxxxxI", buffer) == (77, 0x15, 5, 4)
    symbols = [call[0] for call in xen.calls]
    assert symbols.count("xencall_open") == symbols.count("xencall_close") == domctls(xen) == 2
    assert symbols.count("xencall_alloc_buffer") == symbols.count("xencall_free_buffer") == 2
