from __future__ import annotations

import logging

import pytest

from tests.contract.fake_xen import FakeXen
from xenintro.errors import NotSupportedError
from xenintro.xen import signatures
from xenintro.xen.library import Library
from xenintro.xen.locate import Location


def test_a_call_of_a_later_release_is_a_capability_that_is_off():
    library = FakeXen((4, 17)).library()
    assert library.missing() == ["xc_monitor_io"]
    assert not library.has("xc_monitor_io")
    assert library.has("xc_monitor_vmexit")
    assert library.parameters("xc_monitor_io") == ()
    with pytest.raises(NotSupportedError, match=r"xc_monitor_io needs Xen 4\.18") as caught:
        library.call("xc_monitor_io")
    assert "4.17" in caught.value.why


def test_a_call_that_this_build_lacks_is_off_too():
    library = FakeXen((4, 17), absent=("xc_monitor_cpuid",)).library()
    assert library.missing("xc_monitor_") == ["xc_monitor_cpuid", "xc_monitor_io"]
    with pytest.raises(NotSupportedError, match="not available"):
        library.call("xc_monitor_cpuid")


def test_the_oldest_release_has_the_event_channel_under_its_old_name():
    xen = FakeXen((4, 6))
    library = xen.library()
    library.call("xenevtchn_open")(library.ffi.NULL, 0)
    assert xen.calls == [("xc_evtchn_open", 0)]


def test_a_newer_release_is_used_with_a_warning(caplog):
    xen = FakeXen(signatures.NEWEST)
    xen.release = (4, 23)
    with caplog.at_level(logging.WARNING):
        library = xen.library()
    assert "4.23 is newer" in caplog.text
    assert library.missing() == []


def test_no_warning_for_a_known_release(caplog):
    FakeXen(signatures.NEWEST).library()
    assert not caplog.records


def test_a_file_that_is_no_library_is_refused(tmp_path):
    broken = tmp_path / "libxenctrl.so.4.17"
    broken.write_bytes(b"not ELF")
    with pytest.raises(NotSupportedError, match="cannot load") as caught:
        Library(Location((4, 17), broken))
    assert "ldd" in caught.value.hint


def test_companions_beside_the_library_are_preferred(tmp_path):
    (tmp_path / "libxencall.so.1").touch()
    asked = []

    def dlopen(ffi, name):
        asked.append(name)
        return object()

    Library(Location((4, 17), tmp_path / "libxenctrl.so.4.17"), dlopen=dlopen)
    assert str(tmp_path / "libxencall.so.1") in asked
    assert "libxenevtchn.so.1" in asked
    assert asked[-1] == str(tmp_path / "libxenctrl.so.4.17")


def test_libxc_is_told_to_be_quiet():
    xen = FakeXen()
    library = xen.library()
    assert library.quiet_logger
    assert xen.calls == [("xtl_createlogger_stdiostream", 10, 0)]
    assert not FakeXen(absent=("xtl_createlogger_stdiostream",)).library().quiet_logger


def test_the_address_of_a_call_is_a_number():
    library = FakeXen().library()
    assert library.address("xenevtchn_notify") > 0
