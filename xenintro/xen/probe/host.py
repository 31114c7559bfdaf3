"""The host: devices, libraries, hypervisor."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from xenintro.errors import XenintroError
from xenintro.xen import signatures
from xenintro.xen.failures import failure
from xenintro.xen.preflight import ring_interface
from xenintro.xen.probe.finding import Finding, failed
from xenintro.xen.xenstore import XenStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.xen.signatures import Release
    from xenintro.xen.xc import Xc

#: Devices, and the call that fails without them.
_DEVICES = {"/dev/xen/privcmd": "xc_interface_open", "/dev/xen/evtchn": "xenevtchn_open"}

#: Without these nothing can be watched; a library without another call lacks that trap only.
_NEEDED = ("xc_monitor_enable", "xc_monitor_disable", "xenevtchn_open", "xenevtchn_bind_interdomain")


def devices() -> Iterator[Finding]:
    """The device files of dom0."""
    for path, call in _DEVICES.items():
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            yield failed("device", "host", path, failure(call, error.errno or 0))
        else:
            yield Finding("device", "host", "ok", path, "readable and writable")


def findings(xc: Xc) -> Iterator[Finding]:
    """What the open libxc and the hypervisor say."""
    yield _library(xc)
    try:
        for call in _NEEDED:
            xc.library.call(call)
        yield _hypervisor(xc)
        layout = ring_interface(xc)
    except XenintroError as error:
        yield failed("interface", "host", "vm_event interface", error)
    else:
        detail = f"{layout.id}: {layout.nr_slots} slots of {layout.slot_size} bytes"
        yield Finding("interface", "host", "ok", "vm_event interface", detail)
    yield _xenstore()


def _library(xc: Xc) -> Finding:
    path = xc.library.path
    calls = [call for call in signatures.CALLS if call.startswith("xc_monitor_")]
    missing = xc.missing("xc_monitor_")
    detail = f"{len(calls) - len(missing)} of {len(calls)} monitor calls"
    if missing:
        detail += "; missing " + ", ".join(f"{call} ({_since(call, xc.release)})" for call in missing)
    lacks = any(signatures.form(call, xc.release) for call in missing)
    fix = "install the complete libraries of this release" if lacks else ""
    level = "warn" if lacks else "ok"
    return Finding("libxenctrl", "host", level, path.name, f"{detail}; {path.parent}", fix)


def _since(call: str, release: Release) -> str:
    since = signatures.first_release(call)
    return f"needs {_text(since)}" if since and since > release else "this library lacks it"


def _hypervisor(xc: Xc) -> Finding:
    version = xc.version()
    found = re.match(r"(\d+)\.(\d+)", version)
    running = (int(found[1]), int(found[2])) if found else xc.release
    level, detail, fix = "ok", f"Xen {version}", ""
    if running != xc.release:
        level = "warn"
        detail += f", but the libraries are of {_text(xc.release)}"
        fix = "name the directory of the right ones: --xen DIR"
    elif running > signatures.NEWEST:
        level = "warn"
        detail += f" is newer than this xenintro knows ({_text(signatures.NEWEST)})"
        fix = "update xenintro"
    return Finding("xen", "host", level, "hypervisor", detail, fix)


def _xenstore() -> Finding:
    with XenStore() as store:
        if store.read("domid") or store.read("/local/domain/0/domid"):
            return Finding("xenstore", "host", "ok", "xenstore", "answers")
    return Finding(
        *("xenstore", "host", "warn", "xenstore", "does not answer: domains have no names here"),
        fix="start xenstored; until then choose domains by number: --domid N",
    )


def _text(release: Release) -> str:
    return f"{release[0]}.{release[1]}"
