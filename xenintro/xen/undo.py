"""What is changed in a domain, as data: each change is noted as what takes it back.

A new kind is a class and a row of `UNDO`; the journal keeps it as one JSON object, its name under ``undo``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from xenintro.abi import CTRLREGS
from xenintro.traps import Trap
from xenintro.xen.arming import OPEN, SWITCHES, disarm
from xenintro.xen.domctl import SINCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from xenintro.xen.signatures import Release
    from xenintro.xen.xc import Xc

    Step = Callable[[], None]


class TrapOn(msgspec.Struct, frozen=True, tag_field="undo", tag="trap"):
    """A trap other than on pages may be on."""

    trap: Trap


class Pages(msgspec.Struct, frozen=True, tag_field="undo", tag="mem_access"):
    """Permissions of pages may be other than these; the "first page" may be `xenintro.xen.xc.NEW_PAGES`."""

    first_gfn: int
    count: int
    access: str = OPEN


class AccessRequired(msgspec.Struct, frozen=True, tag_field="undo", tag="access_required"):
    """A page violation without a monitor may crash the guest."""

    value: bool = False


class Views(msgspec.Struct, frozen=True, tag_field="undo", tag="views"):
    """altp2m may be on, and vCPUs in views of it."""


class InViews(msgspec.Struct, frozen=True, tag_field="undo", tag="in_views"):
    """Answers may have put vCPUs into views that somebody else has made, and keeps."""


class Steps(msgspec.Struct, frozen=True, tag_field="undo", tag="single_step"):
    """These vCPUs may single-step. Nothing else ever stops it, and it blocks their interrupts."""

    nr_vcpus: int


class WritesWait(msgspec.Struct, frozen=True, tag_field="undo", tag="writes_wait"):
    """Register writes wait for their answers. The end of the ring ends that, and loses those that wait."""


Change = TrapOn | Pages | AccessRequired | Views | InViews | Steps | WritesWait


class Undo(NamedTuple):
    """How a kind of change is taken back.

    Attributes:
        steps: the calls to make, all of which are tried.
        paused: only while the domain is paused.
    """

    steps: Callable[[Xc, int, Any], Iterable[Step]]
    paused: bool = False


def _views(xc: Xc, domid: int, change: Views) -> list[Step]:
    def off() -> None:
        if xc.altp2m_state(domid):
            xc.switch_to_view(domid, 0)
            xc.set_altp2m_state(domid, on=False)

    return [off]


def _in_views(xc: Xc, domid: int, change: InViews) -> list[Step]:
    def back() -> None:
        if xc.altp2m_state(domid):
            xc.switch_to_view(domid, 0)

    return [back]


UNDO: Mapping[type, Undo] = {
    TrapOn: Undo(lambda xc, domid, change: [partial(disarm, xc, domid, change.trap)]),
    Pages: Undo(
        lambda xc, domid, change: [
            partial(xc.set_mem_access, domid, change.access, change.first_gfn, change.count)
        ]
    ),
    AccessRequired: Undo(lambda xc, domid, change: [partial(xc.set_access_required, domid, change.value)]),
    Views: Undo(_views),
    InViews: Undo(_in_views, paused=True),
    WritesWait: Undo(lambda xc, domid, change: []),
    Steps: Undo(
        lambda xc, domid, change: [
            partial(xc.debug_control, domid, vcpu_id, single_step=False) for vcpu_id in range(change.nr_vcpus)
        ],
        paused=True,
    ),
}


def undo(xc: Xc, domid: int, changes: Iterable[Change], *, paused: bool) -> list[Step]:
    """The calls that take changes back, last change first: those for a paused domain, or the others."""
    chosen = [change for change in changes if UNDO[type(change)].paused == paused]
    return [step for change in reversed(chosen) for step in UNDO[type(change)].steps(xc, domid, change)]


def writes_wait(release: Release, changes: Iterable[Change]) -> bool:
    """Whether vCPUs that were answered may have register writes to do, which the end of the ring loses.

    Up to Xen 4.13 every trapped write waits (985ba41f66).
    """
    return any(
        isinstance(change, WritesWait)
        or (release < SINCE and isinstance(change, TrapOn) and is_write(change.trap))
        for change in changes
    )


def is_write(trap: Trap) -> bool:
    """Whether its events are register writes that an answer can deny; those of XCR0 never are."""
    written = trap.reason == "write_ctrlreg" and CTRLREGS[trap.index] != "xcr0"
    return trap.sync and (written or trap.reason == "mov_to_msr")


def change_of(trap: Trap) -> Change | None:
    """What arming a trap changes; None if nothing: interrupts are asked for in responses."""
    if trap.reason == "mem_access":
        return Pages(trap.first_gfn, trap.page_count)
    return TrapOn(trap) if trap.reason in SWITCHES else None
