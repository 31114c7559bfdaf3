"""What a capture says of itself, beside the packets."""

from __future__ import annotations

from typing import Annotated

import msgspec

from xenintro.legality import Machine
from xenintro.xen.stepping import StepState

#: A time in nanoseconds: not before the epoch, and in 64 bits.
_Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Domid = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]


class CaptureInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The watched domain, the host, and how it was watched; kept in the section header of the capture.

    A member that the writer did not know is None or empty: a foreign file has no more than slots.

    Attributes:
        abi: interface id of the slots, ``vm_event-7``.
        arch: ``x86_64`` or ``arm64``.
        release: of Xen as the layout's table knows it, ``4.17``.
        xen: full version of Xen, ``4.17.7``.
        domid, domain, uuid, nr_vcpus: the domain.
        events: the traps, as ``-e`` takes them.
        policies: files, with their SHA-256.
        mode: ``observe`` or ``enforce``; None without a policy.
        deadline: seconds that a request waited at most.
        machine: what answers could rely on.
        steps: what was under way when the file was begun: it goes on where another ended.
        started_ns: nanoseconds since the epoch.
        monotonic_ns: CLOCK_MONOTONIC at the same instant.
        version: of the xenintro that wrote it.
        os: kernel of dom0.
        command: the command line.
    """

    abi: str
    arch: str = "x86_64"
    release: str | None = None
    xen: str | None = None
    domid: _Domid | None = None
    domain: str | None = None
    uuid: str | None = None
    nr_vcpus: int | None = None
    events: str = ""
    policies: dict[str, str] = {}
    mode: str | None = None
    deadline: float | None = None
    machine: Machine | None = None
    steps: StepState = StepState()
    started_ns: _Nanoseconds = 0
    monotonic_ns: _Nanoseconds = 0
    version: str = ""
    os: str = ""
    command: tuple[str, ...] = ()
