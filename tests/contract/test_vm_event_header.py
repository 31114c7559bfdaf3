"""The layout table against the installed vm_event.h, by a compiled program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xenintro.abi import CAPABILITIES, SLOT0, Flag, Interface, interface

HEADER = Path("/usr/include/xen/vm_event.h")

#: Where the members of an event lie in struct vm_event_st, if not in u.<reason>.
MEMBERS = {
    "descriptor_access": "desc_access",
    "interrupt": "interrupt.x86",
    "vmexit": "vmexit.arch.vmx",
    "io_instruction": "io",
}
VMX_ONLY = {"instr_info", "exit_qualification"}

pytestmark = pytest.mark.skipif(
    not HEADER.exists() or shutil.which("gcc") is None, reason="needs gcc and libxen-dev"
)


def checks(layout: Interface) -> list[str]:
    """C expressions that must be true."""
    conditions = [
        f"sizeof(vm_event_request_t) == {layout.slot_size}",
        f"sizeof(vm_event_response_t) == {layout.slot_size}",
        f"VM_EVENT_INTERFACE_VERSION == {layout.version}",
        f"__RING_SIZE((vm_event_sring_t *)0, 4096) == {layout.nr_slots}",
        f"offsetof(vm_event_sring_t, ring) == {SLOT0}",
        "offsetof(vm_event_sring_t, rsp_prod) == 8",
    ]
    places = {name: (name, field) for name, field in layout.header.items()}
    for reason, fields in layout.payloads.items():
        for name, field in fields.items():
            arm = "arch.vmx." if reason == "descriptor_access" and name in VMX_ONLY else ""
            places[f"{reason}.{name}"] = f"u.{MEMBERS.get(reason, reason)}.{arm}{name}", field
    for name, field in layout.registers.items():
        places[name] = f"data.regs.x86.{name}", field
    for path, field in places.values():
        conditions.append(f"offsetof(vm_event_request_t, {path}) == {field.offset}")
        conditions.append(f"sizeof(((vm_event_request_t *)0)->{path}) == {field.size}")
    for code, reason in layout.reasons.items():
        conditions.append(f"VM_EVENT_REASON_{reason.upper()} == {code}")
    for bit, flag in layout.flag_names.items():
        conditions.append(f"VM_EVENT_FLAG_{flag.upper()} == 1 << {bit}")
        conditions.append(f"{Flag[flag.upper()].value} == 1 << {bit}")
    return conditions


def test_every_size_offset_and_number(tmp_path: Path) -> None:
    text = HEADER.read_text()
    version = re.search(r"VM_EVENT_INTERFACE_VERSION\s+0x0*(\d+)", text)
    assert version is not None
    layout = interface(f"vm_event-{version[1]}")
    # An older header of the same version lacks the newest reasons.
    known = [
        c for c in checks(layout) if all(w in text for w in re.findall(r"VM_EVENT_(?:REASON|FLAG)_\w+", c))
    ]
    known = [c for c in known if "u.io." not in c or "vm_event_io" in text]
    assert len(known) > 150
    source = tmp_path / "layout.c"
    lines = [f'_Static_assert({condition}, "{condition}");' for condition in known]
    source.write_text(
        "#define __XEN_TOOLS__ 1\n#include <stddef.h>\n#include <stdint.h>\n#include <xenctrl.h>\n"
        "#include <xen/vm_event.h>\n" + "\n".join(lines) + "\n"
    )
    outcome = subprocess.run(
        ["gcc", "-c", "-o", str(tmp_path / "layout.o"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[:2000]


def test_capability_bits(tmp_path: Path) -> None:
    names = {"descriptor_access": "DESC_ACCESS", "io_instruction": "IO"}
    text = Path("/usr/include/xen/domctl.h").read_text()
    for name, bit in CAPABILITIES.items():
        macro = f"XEN_DOMCTL_MONITOR_EVENT_{names.get(name, name.upper())}"
        found = re.search(rf"{macro}\s+(\d+)", text)
        assert found is None or int(found[1]) == bit
