"""The second way to a ring, against stand-ins for libxc."""

from __future__ import annotations

import errno

import pytest

from tests.contract.fake_xen import FakeXen
from xenintro.errors import XenintroError
from xenintro.xen.keeper import Keeper


def test_a_page_that_cannot_be_had_leaves_nothing_open() -> None:
    xen = FakeXen((4, 17))
    xen.answers["xc_hvm_param_get"] = (-1, errno.EPERM)
    with pytest.raises(XenintroError):
        Keeper(xen.xc(), 5)
    assert [call[0] for call in xen.calls].count("xc_interface_close") == 1
