"""What a capture of a watched domain says of itself."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING

from xenintro.capture.info import CaptureInfo
from xenintro.policy.spec import rules_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenintro.xen.monitor import Monitor


def about(monitor: Monitor, xen: str, *, events: str, policies: Sequence[str], enforce: bool) -> CaptureInfo:
    """What is known of a monitor, from now on.

    Args:
        monitor: of the domain.
        xen: full version of Xen.
        events: the traps.
        policies: as the command line or the configuration names them.
        enforce: their answers are sent.
    """
    from importlib.metadata import version  # its parser of mail headers is slow to load, and few record

    domain, layout, system = monitor.info, monitor.interface, os.uname()
    now_ns = monotonic_ns()
    return CaptureInfo(
        abi=layout.id,
        arch=layout.arch,
        release=layout.release,
        xen=xen,
        domid=domain.domid,
        domain=domain.name,
        uuid=domain.uuid,
        nr_vcpus=domain.nr_vcpus,
        events=events,
        policies=hashes(policies),
        mode=("enforce" if enforce else "observe") if policies else None,
        deadline=monitor.deadline,
        machine=monitor.machine,
        # The times that policies are told, so that a replay tells them the same.
        started_ns=now_ns + monitor.guest.offset_ns,
        monotonic_ns=now_ns,
        version=version("xenintro"),
        os=f"{system.sysname} {system.release}",
        command=tuple(sys.argv),
    )


def hashes(policies: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of the files that policies come from, by what they are called; empty if it is no file."""
    return {spec: _sha256(spec) for spec in policies}


def _sha256(spec: str) -> str:
    """Of the file that a policy comes from; empty if it is none."""
    path = rules_path(spec) or Path(spec if Path(spec).is_file() else spec.rpartition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
