"""The table of calls, the constants and the struct offsets against Xen's own headers, by gcc."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.fake_xen import FakeXen
from xenintro.xen import caller, library, signatures, xc, xenstore
from xenintro.xen.domains import domain_info

_INCLUDES = """
#define XC_WANT_COMPAT_DEVICEMODEL_API
#define XC_WANT_COMPAT_MAP_FOREIGN_API
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <xenctrl.h>
#include <xencall.h>
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xentoollog.h>
#include <xen/io/xs_wire.h>
"""

_SAME = [
    (str(caller.FIRST_RESERVED_DOMID), "DOMID_FIRST_RESERVED"),
    (str(library._QUIET), "XTL_NUM_LEVELS"),
    (str(xc._XENVER_VERSION), "XENVER_version"),
    (str(xc._XENVER_EXTRAVERSION), "XENVER_extraversion"),
    (str(xc._SINGLE_STEP_OFF), "XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF"),
    (str(xc._SINGLE_STEP_ON), "XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_ON"),
    (str(xenstore._READ), "XS_READ"),
    (str(xenstore._WATCH), "XS_WATCH"),
    (str(xenstore._WATCH_EVENT), "XS_WATCH_EVENT"),
    (str(xenstore._HEADER.size), "sizeof(struct xsd_sockmsg)"),
    (str(xenstore._PAYLOAD_MAX), "XENSTORE_PAYLOAD_MAX"),
    ("1", f"(sizeof(xc_domaininfo_t) <= {xc._GETDOMAININFO_ROOM})"),
]

_DOMAIN = """
int main(void) {
    xc_domaininfo_t info;
    memset(&info, 0xff, sizeof(info));
    info.domain = 5;
    info.flags = XEN_DOMINF_hvm_guest | XEN_DOMINF_hap | XEN_DOMINF_shutdown
        | (3 << XEN_DOMINF_shutdownshift);
    info.tot_pages = 0x8000;
    info.max_pages = 0x8100;
    info.cpu_time = 1500000000;
    info.max_vcpu_id = 3;
    memset(info.handle, 0xab, sizeof(info.handle));
    fwrite(&info, sizeof(info), 1, stdout);
    return 0;
}
"""


@pytest.fixture(scope="module")
def gcc():
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("no gcc")
    return found


@pytest.fixture
def build(gcc, tmp_path):
    """Compile C against Xen's headers in this directory; returns the program."""

    def build(source: str, include: Path) -> Path:
        program = tmp_path / "program"
        (tmp_path / "program.c").write_text(_INCLUDES + source)
        done = subprocess.run(
            [gcc, "-std=gnu11", "-Wall", "-Werror", f"-I{include}", "-o", program, tmp_path / "program.c"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return program

    return build


def _prototypes(release) -> str:
    """Every prototype again: C refuses one that differs from the header's."""
    forms = (signatures.form(call, release) for call in signatures.CALLS)
    domid = f"typedef {signatures.domid_type(release)} arg_domid_t;\n"
    return domid + "".join(f"{form.prototype};\n" for form in forms if form)


def _assertions(release) -> str:
    same = [*_SAME, (str(signatures.hap_flag(release)), "XEN_DOMINF_hap")]
    same += [
        (str(value), f"XENMEM_access_{name}") for value, name in enumerate(signatures.access_names(release))
    ]
    ffi = FakeXen(release).library().ffi
    vcpu = "xc_vcpuinfo_t"
    same += [(str(ffi.sizeof(vcpu)), f"sizeof({vcpu})"), (str(ffi.sizeof("xen_pfn_t")), "sizeof(xen_pfn_t)")]
    same += [
        (str(ffi.offsetof(vcpu, field)), f"offsetof({vcpu}, {field})")
        for field in ("online", "blocked", "running", "cpu_time", "cpu")
    ]
    return "".join(f'_Static_assert({ours} == {theirs}, "{theirs}");\n' for ours, theirs in same)


def test_the_table_agrees_with_the_headers(real_xen, build):
    source = _prototypes(real_xen.release) + _assertions(real_xen.release)
    build(f"{source}\nint main(void) {{ return 0; }}\n", real_xen.include)


def test_a_wrong_prototype_would_be_found(real_xen, build):
    wrong = _prototypes(real_xen.release).replace(
        "uint16_t index, bool enable", "uint32_t index, bool enable"
    )
    with pytest.raises(AssertionError, match="xc_monitor_write_ctrlreg"):
        build(f"{wrong}\nint main(void) {{ return 0; }}\n", real_xen.include)


def test_the_table_agrees_with_the_installed_headers(gcc, build):
    if not Path("/usr/include/xenctrl.h").exists():
        pytest.skip("libxen-dev is not installed")
    where = subprocess.run(
        [gcc, "-print-file-name=libxenctrl.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = re.search(r"\.so\.(\d+\.\d+)", str(Path(where).resolve()))
    assert found is not None, where
    release = signatures.parse_release(found[1])
    build(
        f"{_prototypes(release)}{_assertions(release)}\nint main(void) {{ return 0; }}\n",
        Path("/usr/include"),
    )


def test_a_real_domain_record_is_read(real_xen, build, monkeypatch, tmp_path):
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "none"))
    raw = subprocess.run([build(_DOMAIN, real_xen.include)], capture_output=True, check=True).stdout
    xen = FakeXen(real_xen.release)
    interface = xen.xc()

    def answer(handle, first, count, info):
        interface.library.ffi.memmove(info, raw, len(raw))
        return 1

    xen.answers["xc_domain_getinfolist"] = answer
    info = domain_info(interface, 5)
    assert (info.domid, info.hvm, info.hap, info.paused, info.dying) == (5, True, True, False, False)
    assert (info.shutdown, info.shutdown_reason) == (True, 3)
    assert (info.tot_pages, info.max_pages) == (0x8000, 0x8100)
    assert (info.nr_vcpus, info.cpu_time_ns) == (4, 1_500_000_000)
    assert info.uuid == "abababab-abab-abab-abab-abababababab"
