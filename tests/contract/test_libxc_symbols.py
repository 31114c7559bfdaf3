"""The table of calls against the libraries that Debian ships."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from xenintro.xen import signatures
from xenintro.xen.locate import locate

#: Several libxenctrl cannot share a process: each is loaded in one of its own.
_EXPORTED = """
import ctypes, json, sys
names = sys.argv[1:]
handles = [ctypes.CDLL(path) for path in json.load(sys.stdin)]
print(json.dumps([name for name in names if any(hasattr(handle, name) for handle in handles)]))
"""

_LOADED = """
import json, sys
from xenintro.xen.library import Library
from xenintro.xen.locate import locate
library = Library(locate(sys.argv[1]))
print(json.dumps([library.release, library.missing()]))
"""

_OPENED = """
import sys
from xenintro.errors import XenintroError
from xenintro.xen.evtchn import EventChannel
from xenintro.xen.library import Library
from xenintro.xen.locate import locate
from xenintro.xen.xc import Xc
for opens in (Xc, EventChannel):
    try:
        opens(Library(locate(sys.argv[1])))
    except XenintroError as error:
        print(error.exit_code, *error.lines(), sep="|")
"""


def _child(script, *arguments, directory, stdin=""):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"LD_LIBRARY_PATH": str(directory), "PYTHONPATH": str(Path(__file__).parents[2])},
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
    )


def _without(release):
    return {call for call in signatures.CALLS if signatures.form(call, release) is None}


def test_the_table_is_right_about_what_each_release_exports(real_xen):
    directory = real_xen.libraries
    names = ("xenctrl.so.{}.{}".format(*real_xen.release), "xentoollog.so.1", "xenevtchn.so.1")
    names += ("xenforeignmemory.so.1", "xencall.so.1", "xendevicemodel.so.1")
    paths = json.dumps([str(directory / f"lib{name}") for name in names])
    calls = sorted(signatures.CALLS)
    exported = json.loads(_child(_EXPORTED, *calls, directory=directory, stdin=paths).stdout)
    assert set(calls) - set(exported) == _without(real_xen.release)


def test_the_binding_finds_every_call_of_the_release(real_xen):
    done = _child(_LOADED, str(real_xen.libraries), directory=real_xen.libraries)
    release, missing = json.loads(done.stdout)
    assert tuple(release) == real_xen.release
    assert set(missing) == _without(real_xen.release)
    assert done.stderr == ""


def test_a_directory_alone_is_enough_without_help_for_the_dynamic_linker(real_xen):
    done = _child(_LOADED, str(real_xen.libraries), directory="/nonexistent")
    assert tuple(json.loads(done.stdout)[0]) == real_xen.release


def test_without_xen_the_real_library_ends_in_our_own_words(real_xen):
    if Path("/dev/xen/privcmd").exists() or Path("/proc/xen/privcmd").exists():
        pytest.skip("this host runs Xen")
    done = _child(_OPENED, str(real_xen.libraries), directory=real_xen.libraries)
    privcmd, evtchn = done.stdout.splitlines()
    assert privcmd.startswith("3|error: cannot open /dev/xen/privcmd|")
    assert "ENOENT from xc_interface_open" in privcmd
    assert evtchn.startswith("3|error: cannot open /dev/xen/evtchn|")
    assert done.stderr == "", "libxc's own log is not shown"


def test_auto_finds_the_library_that_the_dynamic_linker_knows(real_xen, tmp_path):
    files = {
        "sys/hypervisor/type": "xen",
        "proc/xen/capabilities": "control_d",
        "etc/conf": real_xen.libraries,
    }
    files |= zip(
        ("sys/hypervisor/version/major", "sys/hypervisor/version/minor"), real_xen.release, strict=True
    )
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    etc = tmp_path / "etc"
    subprocess.run(["/sbin/ldconfig", "-X", "-f", etc / "conf", "-C", etc / "ld.so.cache"], check=True)
    found = locate("auto", tmp_path)
    assert found.release == real_xen.release
    assert found.library.name == "libxenctrl.so.{}.{}".format(*real_xen.release)
    assert found.library.exists()
