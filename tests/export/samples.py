"""Small captures made to order: every reason, both architectures, every way to be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.slots import make_slot
from xenintro.abi import Interface, interface
from xenintro.answered import Answered
from xenintro.capture.info import CaptureInfo
from xenintro.codec import decode, encode
from xenintro.response import ALLOWED, Response, allow

if TYPE_CHECKING:
    from xenintro.events import Event

#: 2026-11-22T16:59:59.999990000Z: the third event falls into the next hour.
START_NS = 1795366799_999_990_000
STEP_NS = 7_000


class NamedRule(NamedTuple):
    """A rule that says something."""

    name: str
    level: str | None = None
    tags: tuple[str, ...] = ()
    says: str | None = None

    def message(self, event: Event) -> str | None:
        return self.says


class Sample(NamedTuple):
    info: CaptureInfo
    events: list[Answered]


FREEZE = NamedRule("freeze-lstar", "critical", ("T1014", "integrity"), "lstar changes")
QUIET = NamedRule("count-cr3")

#: vm_event-7: payload and registers by reason; kernel addresses have bit 63 set.
_X86: dict[int, tuple[dict[str, int], dict[str, int]]] = {
    1: (
        {"gfn": 0x1A2B3, "offset": 0x4C8, "gla": 0xFFFF800000001000, "flags": 0b001010},
        {"rip": 0xFFFFF80000102030, "cr3": 0x1AA000, "rax": 0xDEADBEEF, "cs": 0x0A9B0000 | 0xFFFFF},
    ),
    2: ({"gfn": 0x77, "p2mt": 12}, {}),
    3: ({"gfn": 0x2000, "p2mt": 10, "flags": 1}, {}),
    4: ({"index": 1, "new_value": 0x103000, "old_value": 0x102000}, {"rip": 0x100070, "dr6": 0xFFFF0FF0}),
    5: (
        {"msr": 0xC0000082, "new_value": 0xFFFFF800DEAD0000, "old_value": 0xFFFFF80081A00080},
        {"rip": 0xFFFFF80000000010, "msr_lstar": 0xFFFFF80081A00080, "rsp": 0xFFFFFFFFFFFFFFFF},
    ),
    6: ({"gfn": 0x104, "insn_length": 1, "type": 6}, {"rip": 0x7FFFFFFFFFFFFFFF}),
    7: ({"gfn": 0x105}, {"rip": 0x8000000000000000}),
    8: ({}, {"rip": 0x100200, "rax": 0x1234}),
    9: ({"gfn": 0x106, "insn_length": 2, "type": 3, "pending_dbg": 0x4000}, {"rip": 0x100300}),
    10: ({"insn_length": 2, "leaf": 0x40000000, "subleaf": 7}, {"rip": 0x100400, "rbx": 0x566E6558}),
    11: ({}, {"rip": 0x100500}),
    12: ({"vector": 0xE1, "type": 0, "error_code": 0xFFFFFFFF, "cr2": 0xFFFF800000002000}, {"rip": 0x100600}),
    13: ({"exit_qualification": 0x10, "descriptor": 1, "is_write": 1}, {"rip": 0x100700, "gdtr_limit": 0x7F}),
    14: ({}, {"rip": 0x100800}),
    15: ({"reason": 48, "qualification": 0x8000000000000181}, {"rip": 0x100900}),
    16: ({"bytes": 1, "port": 0x3F8, "in": 0, "str": 0}, {"rip": 0x100A00}),
}


def _info(layout: Interface, domain: str | None, domid: int | None) -> CaptureInfo:
    return CaptureInfo(
        abi=layout.id, arch=layout.arch, release=layout.release, xen="4.18.3", domid=domid, domain=domain,
        uuid="6e0c4b2a-0000-4000-8000-000000000001", nr_vcpus=2, events="cr3,msr:lstar",
        policies={"rules/kernel.toml": "ab" * 32}, mode="observe", deadline=0.25,
        started_ns=START_NS - 1_000_000, monotonic_ns=5_000_000_000, version="0.1.0", os="Linux 6.1.0",
        command=("xenintro", "record", "--name", "win 10"),
    )  # fmt: skip


def _answered(
    event: Event, at: int, *, choice: Response | None = None, pause_ns: int = 27_104, **more: object
) -> Answered:
    taken = START_NS + at * STEP_NS
    chosen = choice or (allow(event) if event.reason != "unknown" else ALLOWED)
    made = Answered(event, chosen.name, encode(event, chosen), taken, taken + pause_ns)
    return made._replace(**more)  # type: ignore[arg-type]


def _x86() -> Sample:
    layout = interface("vm_event-7", release="4.18")
    slots = {
        reason: make_slot(
            layout, reason, payload=payload, registers=registers, vcpu_id=reason % 2, paused=True
        )
        for reason, (payload, registers) in _X86.items()
    }
    events = {reason: decode(raw, layout) for reason, raw in slots.items()}
    every = [_answered(event, at, pause_ns=1_000 * (at + 1)) for at, event in enumerate(events.values())]
    at = len(every)
    asynchronous = decode(make_slot(layout, 8, registers={"rip": 0x100210}), layout)
    newer = decode(make_slot(layout, 99, payload=None, paused=True, vcpu_id=3), layout)
    other_version = decode(make_slot(layout, 4, version=8, paused=True), layout)
    lstar = events[5]
    every += [
        _answered(lstar, at, choice=Response.deny(), rule=FREEZE),
        _answered(lstar, at + 1, rule=FREEZE, would="deny"),
        _answered(events[4], at + 2, rule=QUIET),
        _answered(events[1], at + 3, pause_ns=250_000_000, late=True),
        _answered(asynchronous, at + 4),
        _answered(newer, at + 5),
        _answered(other_version, at + 6),
        _answered(events[4], at + 7, pause_ns=0, answer="unanswered", response=b""),
    ]
    return Sample(_info(layout, "win10", 5), every)


def _few(
    abi: str, arch: str, slots: list[dict[str, object]], domain: str | None, domid: int | None
) -> Sample:
    layout = interface(abi, arch)
    events = [decode(make_slot(layout, paused=True, **slot), layout) for slot in slots]  # type: ignore[arg-type]
    return Sample(_info(layout, domain, domid), [_answered(event, at) for at, event in enumerate(events)])


def _arm() -> Sample:
    registers = {"pc": 0xFFFF000000080000, "ttbr0": 0x8000000040000000, "cpsr": 0x3C5}
    access = {"gfn": 0x40000, "offset": 8, "gla": 0xFFFF000000001008, "flags": 0b001001}
    slots: list[dict[str, object]] = [
        {"reason": 1, "payload": access, "registers": registers},
        {"reason": 11, "registers": registers},
    ]
    return _few("vm_event-7", "arm64", slots, "arm guest", 9)


def _mem_event() -> Sample:
    """Xen 4.4: no registers, several members in one place."""
    slots: list[dict[str, object]] = [
        {"reason": 1, "payload": {"gfn": 0x1000, "offset": 4, "gla": 0x7FFF, "access_w": 1, "gla_valid": 1}},
        {"reason": 3, "payload": {"gfn": 0x103000}},
        {"reason": 5, "payload": {"gfn": 0x200, "gla": 0x1234}},
        {"reason": 7, "payload": {"gla": 0xC0000082, "gfn": 0xFFFFF80081A00080}},
    ]
    return _few("mem_event-4.4", "x86_64", slots, None, None)


SAMPLES = {"x86": _x86(), "arm": _arm(), "mem_event": _mem_event()}
