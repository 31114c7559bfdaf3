from __future__ import annotations

import errno
import struct
import sys

import pytest

from tests.contract.fake_xen import FakeXen
from tests.unit.test_xen_domains import record
from xenintro.errors import NotSupportedError
from xenintro.traps import parse_traps
from xenintro.xen import signatures
from xenintro.xen.preflight import ring_interface
from xenintro.xen.probe import domain, host, process

pytestmark = pytest.mark.usefixtures("alone")


_DOMCTLS = frozenset(signatures.DOMCTL_VERSION.values())


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No xenstore, and no state of other processes."""
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("XENINTRO_STATE_DIR", str(tmp_path / "state"))


def hypercalls(ffi, capabilities, versions=_DOMCTLS):
    """What libxencall answers: to a domctl of these versions the capabilities, to others EACCES."""
    room = ffi.new("char[]", 144)

    def domctl(handle, op, address):
        fields = struct.unpack_from("<IIHxxxxxxI", ffi.buffer(room))
        assert (op, address, fields[0]) == (36, int(ffi.cast("uintptr_t", room)), 77)
        if fields[1] not in versions:
            return -1, errno.EACCES
        struct.pack_into("<I", ffi.buffer(room), 20, capabilities)
        return 0

    return {
        "xencall_alloc_buffer": lambda handle, size: ffi.cast("void *", room),
        "xencall_free_buffer": lambda handle, buffer: None,
        "xencall1": domctl,
    }


def fake(release=(4, 17), running=None, absent=(), interface=7, **info):
    """A host with domain 5."""
    xen = FakeXen(release, absent)
    xc = xen.xc()
    ffi = xc.library.ffi
    raw = record(5, **info)
    major, minor = running or release

    def version(handle, command, room):
        if command == 0:
            return major << 16 | minor
        ffi.memmove(room, b".1\0", 3)
        return 0

    def list_one(handle, first, count, room):
        if first > 5:
            return 0
        ffi.memmove(room, raw, 112)
        return 1

    def store(value):
        def answer(*args):
            args[-1][0] = value
            return 0

        return answer

    def vcpu(handle, domid, vcpu_id, info):
        info.online, info.blocked = 1, 1
        return 0

    xen.answers |= {
        "xc_version": version,
        "xc_vm_event_get_version": interface,
        "xc_domain_getinfolist": list_one,
        "xc_monitor_get_capabilities": store(0x7F),
        "xc_get_mem_access": (-1, 19),  # ENODEV: no ring
        "xc_hvm_param_get": store(2),
        "xc_domain_maximum_gpfn": store(0xFFFF),
        "xc_vcpu_getinfo": vcpu,
        **hypercalls(ffi, 0x7F),
    }
    return xen, xc


def by_id(findings):
    return {finding.id: finding for finding in findings}


def of_domain(xc, events=""):
    return by_id(domain.findings(xc, lambda _: 5, parse_traps(events) if events else ()))


def test_all_is_well():
    _, xc = fake()
    assert {finding.level for finding in host.findings(xc)} - {"warn"} == {"ok"}
    assert {finding.level for finding in of_domain(xc, "cr3,mem:w@0x10").values()} == {"ok"}


def test_calls_that_this_release_cannot_have_are_named_with_the_release_that_has_them():
    _, xc = fake((4, 17))
    found = by_id(host.findings(xc))["libxenctrl"]
    assert found.level == "ok"
    assert "17 of 18" in found.detail
    assert "xc_monitor_io (needs 4.18)" in found.detail


def test_a_library_without_its_own_calls_is_warned_of():
    _, xc = fake((4, 17), absent=("xc_monitor_cpuid",))
    found = by_id(host.findings(xc))["libxenctrl"]
    assert found.level == "warn"
    assert "xc_monitor_cpuid (this library lacks it)" in found.detail
    assert found.fix


def test_a_library_that_cannot_enable_a_ring_is_an_error():
    _, xc = fake((4, 17), absent=("xc_monitor_enable",))
    assert by_id(host.findings(xc))["interface"].level == "error"


@pytest.mark.parametrize(
    ("release", "running", "words"),
    [((4, 16), (4, 17), "libraries are of 4.16"), ((4, 23), (4, 23), "newer than this xenintro knows")],
)
def test_releases_that_do_not_fit(release, running, words):
    _, xc = fake(release, running)
    found = by_id(host.findings(xc))["xen"]
    assert found.level == "warn"
    assert words in found.detail
    assert found.fix


def test_an_interface_that_nobody_knows_is_said_as_watch_says_it():
    _, xc = fake(interface=99)
    with pytest.raises(NotSupportedError) as caught:
        ring_interface(xc)
    found = by_id(host.findings(xc))["interface"]
    assert (found.level, found.fix) == ("error", caught.value.hint)
    assert found.detail == f"{caught.value.what}: {caught.value.why}"


def test_a_xenstore_that_does_not_answer_is_a_warning():
    _, xc = fake()
    assert by_id(host.findings(xc))["xenstore"].level == "warn"


@pytest.mark.parametrize(("vcpus", "level"), [(8, "ok"), (9, "info")])
def test_more_vcpus_than_slots(vcpus, level):
    _, xc = fake(max_vcpu_id=vcpus - 1)
    assert of_domain(xc)["vcpus"].level == level


def test_more_vcpus_than_slots_are_refused_where_xen_never_wakes_them():
    _, xc = fake((4, 8), max_vcpu_id=8)
    found = of_domain(xc)
    assert list(found) == ["domain"]
    assert found["domain"].level == "error"
    assert "4.9" in found["domain"].fix


@pytest.mark.parametrize(
    ("flags", "level", "words"),
    [
        (0x2 | 1, "error", "being destroyed"),
        (0x2 | 4 | 3 << 16, "error", "crashed"),
        (0x2 | 4 | 2 << 16, "error", "suspended"),
        (0x2 | 4 | 200 << 16, "error", "shut down"),
        (0x0, "error", "PV domain"),
        (0x2, "ok", "HVM"),
    ],
)
def test_the_state_of_a_domain(flags, level, words):
    _, xc = fake(flags=flags)
    found = of_domain(xc)["domain"]
    assert found.level == level
    assert words in found.detail


def test_a_domain_without_a_spare_page_is_told():
    xen, xc = fake()
    assert "memory" not in of_domain(xc)
    raw = bytearray(record(5))
    struct.pack_into("=QQ", raw, 8, 0x8100, 0x8100)
    xen.answers["xc_domain_getinfolist"] = lambda _, first, count, room: (
        xc.library.ffi.memmove(room, bytes(raw), 112) or 1
    )
    found = of_domain(xc)["memory"]
    assert found.level == "info"
    assert "mem-max" in found.fix


def test_altp2m_off_names_the_configuration():
    xen, xc = fake()

    def off(*args):
        args[-1][0] = 0
        return 0

    xen.answers["xc_hvm_param_get"] = off
    found = of_domain(xc)["altp2m"]
    assert found.level == "info"
    assert 'altp2m="external"' in found.fix


def test_an_altp2m_that_cannot_be_read_keeps_nobody_from_watching():
    xen, xc = fake()
    xen.answers["xc_hvm_param_get"] = (-1, 1)
    assert of_domain(xc)["altp2m"].level == "info"


def still(xc, xen, change):
    """Which vCPUs stand still; `change` is called with the info and how often it was asked for."""
    asked = {}

    def answer(handle, domid, vcpu_id, info):
        asked[vcpu_id] = asked.get(vcpu_id, 0) + 1
        info.online = 1
        change(vcpu_id, asked[vcpu_id], info)
        return 0

    xen.answers["xc_vcpu_getinfo"] = answer
    return of_domain(xc).get("standing-still")


def test_a_vcpu_that_never_runs_stands_still():
    xen, xc = fake(max_vcpu_id=2)

    def change(vcpu_id, times, info):
        info.blocked = vcpu_id == 0
        info.cpu_time = times if vcpu_id == 1 else 7

    found = still(xc, xen, change)
    assert found.level == "warn"
    assert found.what == "vcpu 2"
    assert found.fix.endswith("xenintro rescue --domid 5")


@pytest.mark.parametrize("state", ["running", "blocked"])
def test_a_vcpu_that_runs_or_sleeps_once_does_not_stand_still(state):
    xen, xc = fake()
    assert still(xc, xen, lambda _, times, info: setattr(info, state, times == 3)) is None


def test_vcpus_of_a_paused_domain_are_not_looked_at():
    xen, xc = fake(flags=0x2 | 8)
    assert still(xc, xen, lambda *_: None) is None
    assert of_domain(xc)["paused"].level == "info"


def test_nothing_is_changed():
    xen, xc = fake()
    of_domain(xc, "cr3,msr:lstar,mem:rwx@0x1,int3,interrupt")
    changing = {"xc_monitor_enable", "xc_domain_pause", "xc_set_mem_access", "xc_domain_debug_control"}
    assert not {call[0] for call in xen.calls} & changing
    traps = [call for call in xen.calls if call[0].startswith("xc_monitor_")]
    assert {call[0] for call in traps} == {"xc_monitor_get_capabilities"}


def test_a_missing_extension_is_said(monkeypatch):
    monkeypatch.delitem(sys.modules, "xenintro.xen.ring", raising=False)
    monkeypatch.delitem(sys.modules, "xenintro.xen.guard", raising=False)
    monkeypatch.setitem(sys.modules, "xenintro.xen._native", None)
    found = by_id(process.findings())["extension"]
    assert found.level == "error"
    assert "pip install" in found.fix


@pytest.mark.parametrize(("score", "level"), [("0\n", "warn"), ("-900\n", "ok"), ("500\n", "warn")])
def test_oom(monkeypatch, tmp_path, score, level):
    monkeypatch.setattr(process, "_OOM", tmp_path / "oom")
    assert "oom" not in by_id(process.findings())
    (tmp_path / "oom").write_text(score)
    assert by_id(process.findings())["oom"].level == level


def test_the_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XENINTRO_STATE_DIR", str(tmp_path / "not" / "yet"))
    assert by_id(process.findings())["state"].level == "ok"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XENINTRO_STATE_DIR", str(tmp_path / "file" / "below"))
    found = by_id(process.findings())["state"]
    assert found.level == "error"
    assert "XENINTRO_STATE_DIR" in found.fix
