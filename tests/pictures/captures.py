"""Captures made to order: what a guest's life looks like, without a guest."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, settings

from tests.slots import make_slot
from xenintro.abi import Access, Flag, interface
from xenintro.answered import Answered
from xenintro.capture.info import CaptureInfo
from xenintro.codec import decode, encode
from xenintro.response import ALLOWED, Response, allow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xenintro.events import Event

LAYOUT = interface("vm_event-7", release="4.17")
REASONS = {name: code for code, name in LAYOUT.reasons.items()}
BEGUN = 1_764_000_000_000_000_000

R, W, X = (
    int(Access.GLA_VALID | Access.FAULT_WITH_GLA | access) for access in (Access.R, Access.W, Access.X)
)
STEP = Response(name="allow", flags=int(Flag.TOGGLE_SINGLESTEP))

INFO = CaptureInfo(
    abi="vm_event-7",
    release="4.17",
    xen="4.17.7",
    domid=5,
    domain="win10",
    uuid="0c5ab1f3-79c4-4c1b-a0f2-3d9b7f3e11aa",
    nr_vcpus=2,
    events="mem:rwx@0x1000-0x2ffff,cr3,msr:lstar,int3,cpuid,guest-request",
    policies={"rules.toml": "4f1d2c" + "0" * 58},
    mode="enforce",
    deadline=0.25,
    started_ns=BEGUN - 30_000_000,
    monotonic_ns=86_400_000_000_000,
    version="0.1.0",
    os="Linux 6.1.0-31-amd64",
    command=("xenintro", "record", "--name", "win10", "-p", "rules.toml", "--mode", "enforce"),
)

#: For properties: how long an example takes depends on the machine.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Named(NamedTuple):
    """A rule."""

    name: str
    level: str | None = None
    tags: tuple[str, ...] = ()
    text: str | None = None

    def message(self, event: Event) -> str | None:
        return self.text


FREEZE = Named("freeze-lstar", "critical", ("rootkit",), "LSTAR must not move")
WATCH = Named("watch-unpacked", "warning", ("packer",))


def answered(
    reason: str,
    at: int,
    *,
    pause: int = 20_000,
    vcpu: int = 0,
    paused: bool = True,
    payload: Mapping[str, int] | None = None,
    rip: int = 0xFFFFF800_00001234,
    response: Response | None = ALLOWED,
    rule: Named | None = None,
    would: str | None = None,
    late: bool = False,
) -> Answered:
    """One request ``at`` nanoseconds after the begin; ``response`` None was never answered."""
    raw = make_slot(
        LAYOUT,
        REASONS[reason],
        vcpu_id=vcpu,
        paused=paused,
        payload=payload,
        registers={"rip": rip, "cr3": 0x1AA000},
    )
    event = decode(raw, LAYOUT)
    taken = BEGUN + at
    if response is None:
        return Answered(event, "unanswered", b"", taken, taken, rule, would)
    return Answered(event, response.name, encode(event, response), taken, taken + pause, rule, would, late)


def access(at: int, gfn: int, flags: int, offset: int = 0x10, **more: object) -> Answered:
    """A page access."""
    payload = {"gfn": gfn, "offset": offset, "gla": 0x7FF6_0000_0000 + (gfn << 12) + offset, "flags": flags}
    return answered("mem_access", at, payload=payload, **more)  # type: ignore[arg-type]


def unpacker(events: int = 20_000, vcpus: int = 2, seed: int = 4) -> Iterator[Answered]:
    """A packed program on a busy system: the stub writes pages, waits, runs them, and is seen to hook LSTAR.

    In order of the requests, each vCPU with one request at a time.
    """
    chance = random.Random(seed)
    free = [0] * vcpus
    life = 6_000_000_000
    tables = [0x1A00 + 7 * page for page in range(40)]
    unpacked = 0x2B400

    def pause(at: int, vcpu: int) -> int:
        span = int(chance.lognormvariate(10.1, 0.35)) + (chance.random() < 0.002) * chance.randrange(
            1_900_000
        )
        free[vcpu] = at + span + 1_000
        return span

    for number in range(events):
        progress = number / events
        at, vcpu = int(_when(progress) * life), chance.randrange(vcpus)
        if free[vcpu] > at:
            vcpu = min(range(vcpus), key=free.__getitem__)
            at = max(at, free[vcpu])
        span = pause(at, vcpu)
        common = {"pause": span, "vcpu": vcpu}
        draw = chance.random()
        if draw < 0.12:
            new = 0x1AA000 + 0x1000 * chance.randrange(12)
            payload = {"index": 1, "new_value": new, "old_value": 0x1AA000}
            yield answered("write_ctrlreg", at, payload=payload, rip=0xFFFFF800_0021A1C0, **common)
        elif 0.3 < progress < 0.6 and draw < 0.9:
            page = unpacked + int((progress - 0.3) / 0.3 * 220) + chance.randrange(2)
            offset = chance.randrange(0, 4096, 8)
            yield access(at, page, W, offset, rip=0x7FF6_1122_1040 + chance.randrange(0, 64, 4), **common)
        elif progress > 0.65 and draw < 0.6:
            page = unpacked + min(int(abs(chance.gauss(0, 60))), 219)
            rip = 0x7FF6_0000_0000 + (page << 12) + chance.randrange(0, 4096, 16)
            rule, would = (WATCH, "deny") if chance.random() < 0.01 else (None, None)
            yield access(at, page, X, rip & 0xFFF, rip=rip, rule=rule, would=would, response=STEP, **common)
        elif progress > 0.65 and draw < 0.7:
            payload = {"gfn": unpacked + chance.randrange(220)}
            step = (
                allow(answered("singlestep", at, payload=payload).event) if chance.random() < 0.9 else ALLOWED
            )
            yield answered("singlestep", at, payload=payload, response=step, **common)
        elif draw < 0.93:
            page = chance.choice(tables)
            kind = W if chance.random() < 0.7 else R
            yield access(at, page, kind, 8 * chance.randrange(512), rip=0xFFFFF800_00310000, **common)
        elif draw < 0.96:
            yield answered("cpuid", at, payload={"leaf": 0x40000000, "insn_length": 2}, **common)
        elif draw < 0.985:
            yield answered("software_breakpoint", at, payload={"gfn": 0x3000, "insn_length": 1}, **common)
        elif draw < 0.995:
            yield answered("guest_request", at, paused=False, **common)
        else:
            payload = {"msr": 0xC0000082, "new_value": 0xFFFFF800_DEAD0000, "old_value": 0xFFFFF800_81A00080}
            denied = Response(name="deny", flags=int(Flag.DENY))
            late = chance.random() < 0.1
            yield answered(
                "mov_to_msr",
                at,
                payload=payload,
                rule=FREEZE,
                response=ALLOWED if late else denied,
                late=late,
                **common,
            )


def _when(progress: float) -> float:
    """Busy, then idle between writing and running, then busy."""
    if progress < 0.6:
        return progress * 0.55 / 0.6
    if progress < 0.65:
        return 0.55 + (progress - 0.6) * 3
    return 0.7 + (progress - 0.65) * 0.3 / 0.35
