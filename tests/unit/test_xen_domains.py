from __future__ import annotations

import struct
import uuid

import pytest

from tests.contract.fake_xen import FakeXen
from xenintro.errors import NoSuchDomainError
from xenintro.xen.domains import domain_info, list_domains

UUID = uuid.UUID("6a8e0f1c-2d3b-4c5d-8e9f-001122334455")


def record(domid, flags=0x2, max_vcpu_id=1):
    """The part of struct xen_domctl_getdomaininfo that never changed, field by field."""
    raw = bytearray(1024)
    for offset, code, value in (
        (0, "H", domid),
        (4, "I", flags),
        (8, "Q", 0x8000),
        (16, "Q", 0x8100),
        (56, "Q", 1_500_000_000),
        (68, "I", max_vcpu_id),
    ):
        struct.pack_into("=" + code, raw, offset, value)
    raw[76:92] = UUID.bytes
    return bytes(raw)


@pytest.fixture
def xen(monkeypatch, tmp_path):
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "none"))

    def make(*records, release=(4, 17)):
        """A Xen that lists as the real one: the first domain whose number is at least this one."""
        fake = FakeXen(release)

        def answer(handle, first, count, info):
            assert count == 1
            for raw in records:
                if struct.unpack_from("=H", raw)[0] >= first:
                    library.ffi.memmove(info, raw, 112)
                    return 1
            return 0

        xc = fake.xc()
        library = xc.library
        fake.answers["xc_domain_getinfolist"] = answer
        return xc

    return make


def test_list_domains_walks_from_number_to_number(xen):
    assert [one.domid for one in list_domains(xen(record(0), record(3), record(9)))] == [0, 3, 9]
    assert list_domains(xen()) == []


def test_the_fields(xen):
    info = domain_info(xen(record(3)), 3)
    assert (info.domid, info.uuid, info.hvm, info.name) == (3, str(UUID), True, None)
    assert (info.tot_pages, info.max_pages) == (0x8000, 0x8100)
    assert (info.nr_vcpus, info.cpu_time_ns) == (2, 1_500_000_000)
    assert (info.paused, info.dying, info.shutdown) == (False, False, False)
    assert info.shutdown_reason is None


def test_flags(xen):
    info = domain_info(xen(record(3, flags=0x1 | 0x8)), 3)
    assert (info.dying, info.hvm, info.paused) == (True, False, True)
    crashed = domain_info(xen(record(3, flags=0x4 | 3 << 16)), 3)
    assert (crashed.shutdown, crashed.shutdown_reason) == (True, 3)


@pytest.mark.parametrize(
    ("release", "flags", "hap"),
    [
        ((4, 7), 0x302, None),
        ((4, 8), 0x202, True),
        ((4, 8), 0x102, False),  # the xenstore domain's bit in this release
        ((4, 9), 0x102, True),
        ((4, 22), 0x202, False),
    ],
)
def test_hap_by_release(xen, release, flags, hap):
    assert domain_info(xen(record(3, flags), release=release), 3).hap is hap


def test_a_domain_without_vcpus(xen):
    assert domain_info(xen(record(3, max_vcpu_id=0xFFFFFFFF)), 3).nr_vcpus == 0


@pytest.mark.parametrize("domid", [2, 4, -1, 0x10003])
def test_the_next_domain_is_not_taken_for_the_one_asked_for(xen, domid):
    with pytest.raises(NoSuchDomainError, match=f"no domain {domid}"):
        domain_info(xen(record(3)), domid)
