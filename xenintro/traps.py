"""What to ask Xen for: the list behind ``-e``, parsed and checked before anything touches a guest.

cr0 cr3 cr4 xcr0     modifiers :async, :onchange, :mask=BITS (bits whose changes do not count)
msr:NAME|NUMBER      modifier :onchange
guest-request        modifiers :async, :userspace
debug                modifier :async
singlestep interrupt modifier :asked (only those that an answer asks for)
cpuid int3 desc emul-unimplemented vmexit privileged-call
mem:ACCESS@GFN[-GFN] ACCESS is letters of rwx; modifier :step (open the page for one step, do not emulate)
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import msgspec

from xenintro.abi import CTRLREGS, MSRS
from xenintro.errors import NotSupportedError, UsageError
from xenintro.events import Event, MemAccess, MovToMsr, UnknownEvent, WriteCtrlreg
from xenintro.units import parse_int

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Names people type, and the reason of the events that come of it.
_SIMPLE: Mapping[str, str] = {
    "cpuid": "cpuid",
    "guest-request": "guest_request",
    "debug": "debug_exception",
    "int3": "software_breakpoint",
    "singlestep": "singlestep",
    "desc": "descriptor_access",
    "interrupt": "interrupt",
    "emul-unimplemented": "emul_unimplemented",
    "vmexit": "vmexit",
    "privileged-call": "privileged_call",
}

#: Modifiers by reason.
_MODIFIERS: Mapping[str, frozenset[str]] = {
    "write_ctrlreg": frozenset({"sync", "async", "onchange", "mask"}),
    "mov_to_msr": frozenset({"onchange"}),
    "guest_request": frozenset({"sync", "async", "userspace"}),
    "debug_exception": frozenset({"sync", "async"}),
    "mem_access": frozenset({"step"}),
    "singlestep": frozenset({"asked"}),
    "interrupt": frozenset({"asked"}),
}

#: What to type for a reason as lines and JSON call it.
_REASONS: Mapping[str, str] = {
    "mem_access": "mem:rwx@GFN",
    "write_ctrlreg": "cr3",
    "mov_to_msr": "msr:lstar",
    **{reason: name for name, reason in _SIMPLE.items()},
}

NAMES = (*CTRLREGS, "msr:lstar", "mem:rwx@GFN", *_SIMPLE)

#: No guest has more: 2^32 pages are 16 TiB, and libxc counts pages with 32 bits.
_LAST_GFN = 0xFFFFFFFE
_LAST_MSR = 0xFFFFFFFF

_MEM = re.compile(r"([rwx]+)@([0-9a-fA-FxX]+)(?:-([0-9a-fA-FxX]+))?")


class Trap(msgspec.Struct, frozen=True):
    """One kind of event that is asked for.

    Attributes:
        text: as it was written.
        reason: of its events.
        index: control register (`CTRLREGS`), for write_ctrlreg.
        msr: number, for mov_to_msr.
        sync: the vCPU waits for the answer.
        onchange: only writes that change the value.
        mask: bits whose changes do not count (Xen 4.11 and newer).
        userspace: guest requests from CPL 3 too.
        access: letters of rwx, for mem_access.
        first_gfn, last_gfn: the pages, both included.
        step: let an access happen by opening the page for one step instead of emulating.
        asked: only single-steps or interrupts that an answer asks for.
    """

    text: str
    reason: str
    index: int = 0
    msr: int = 0
    sync: bool = True
    onchange: bool = False
    mask: int = 0
    userspace: bool = False
    access: str = ""
    first_gfn: int = 0
    last_gfn: int = 0
    step: bool = False
    asked: bool = False

    @property
    def page_count(self) -> int:
        """Pages of a mem_access trap."""
        return self.last_gfn - self.first_gfn + 1

    def covers(self, gfn: int) -> bool:
        """Whether a mem_access trap includes this page."""
        return self.first_gfn <= gfn <= self.last_gfn


def parse_traps(text: str) -> tuple[Trap, ...]:
    """Read a comma-separated list.

    Raises:
        UsageError: an unknown name or modifier, a bad number, the same trap twice, overlapping pages.
        NotSupportedError: a trap that no generic answer lets pass.
    """
    traps = tuple(_parse(item.strip()) for item in text.split(",") if item.strip())
    if not traps:
        raise UsageError("no events asked for", hint="for instance: -e cr3,cpuid,mem:w@0x104")
    for number, trap in enumerate(traps):
        for other in traps[:number]:
            _check_pair(other, trap)
    return traps


def asked_for(traps: tuple[Trap, ...]) -> Callable[[Event], bool]:
    """Tells the events that were asked for from those that come along with them.

    Trapping reads of a page traps its writes too, and stepping over a page makes single-step events.
    """

    def wanted(event: Event) -> bool:
        return isinstance(event, UnknownEvent) or any(_matches(trap, event) for trap in traps)

    return wanted


def _matches(trap: Trap, event: Event) -> bool:
    if trap.reason != event.reason:
        return False
    match event:
        case MemAccess():
            return trap.covers(event.gfn) and bool(set(trap.access) & set(event.access))
        case WriteCtrlreg():
            return trap.index == event.index
        case MovToMsr():
            return trap.msr == event.msr
    return True


def _parse(item: str) -> Trap:
    name, _, rest = item.lower().partition(":")
    if name == "msr":
        number, _, modifiers = rest.partition(":")
        return _modified(Trap(item, "mov_to_msr", msr=_msr(number)), modifiers)
    if name == "mem":
        return _mem(item, rest)
    if name in CTRLREGS:
        return _modified(Trap(item, "write_ctrlreg", index=CTRLREGS.index(name)), rest)
    if name == "io":
        raise NotSupportedError(
            "I/O instructions cannot be trapped",
            why="a plain answer executes the IN or OUT again, for ever: no generic answer lets it pass",
            hint="trap what the port's driver does instead, for instance mem:w@GFN",
        )
    if name not in _SIMPLE:
        raise _unknown(name)
    # A synchronous vmexit skips the exit's handler (vmx_vmexit_handler, Xen 4.17): only watching is safe.
    return _modified(Trap(item, _SIMPLE[name], sync=name != "vmexit"), rest)


def _mem(item: str, rest: str) -> Trap:
    pages, _, modifiers = rest.partition(":")
    match = _MEM.fullmatch(pages)
    if match is None:
        raise UsageError(
            f"not a memory trap: {item!r}",
            why="expected mem:ACCESS@GFN or mem:ACCESS@GFN-GFN, ACCESS being letters of rwx",
            hint="for instance mem:w@0x104 or mem:rwx@0x1000-0x1fff",
        )
    first = parse_int(match[2])
    last = parse_int(match[3]) if match[3] else first
    if last < first or last > _LAST_GFN:
        raise UsageError(
            f"not a range of pages: {pages!r}",
            why=f"the last gfn is below the first, or above {_LAST_GFN:#x}",
            hint="for instance mem:rwx@0x1000-0x1fff",
        )
    access = "".join(letter for letter in "rwx" if letter in match[1])
    trap = Trap(item, "mem_access", access=access, first_gfn=first, last_gfn=last)
    return _modified(trap, modifiers)


def _modified(trap: Trap, modifiers: str) -> Trap:
    changes: dict[str, bool | int] = {}
    for modifier in filter(None, modifiers.split(":")):
        name, _, value = modifier.partition("=")
        if name not in _MODIFIERS.get(trap.reason, frozenset()):
            known = ", ".join(f":{name}" for name in sorted(_MODIFIERS.get(trap.reason, ())))
            raise UsageError(
                f"unknown modifier :{name} in {trap.text!r}",
                why=f"{trap.reason} takes {known}" if known else f"{trap.reason} takes no modifier",
            )
        if name in {"sync", "async"}:
            changes["sync"] = name == "sync"
        else:
            changes[name] = parse_int(value) if name == "mask" else True
    return msgspec.structs.replace(trap, **changes)


def _msr(text: str) -> int:
    name = text.lower()
    if name in MSRS:
        return MSRS[name]
    if not name[:1].isdigit():
        close = difflib.get_close_matches(name, MSRS, n=1)
        raise UsageError(
            f"unknown MSR {text!r}",
            why=f"known by name are {', '.join(MSRS)}",
            hint=f"did you mean msr:{close[0]}?"
            if close
            else "any MSR can be given by number: msr:0xc0000082",
        )
    number = parse_int(text)
    if number > _LAST_MSR:
        raise UsageError(
            f"not an MSR: {text!r}", why="MSR numbers have 32 bits", hint="for instance msr:0xc0000082"
        )
    return number


def _unknown(name: str) -> UsageError:
    close = (
        [_REASONS[name]]
        if name in _REASONS
        else difflib.get_close_matches(name.replace("_", "-"), NAMES, n=1, cutoff=0.5)
    )
    return UsageError(
        f"unknown event {name!r}",
        why=f"known are {', '.join(NAMES)}",
        hint=f"did you mean {close[0]}?" if close else "see: xenintro watch --help",
    )


def _check_pair(one: Trap, other: Trap) -> None:
    if one.reason != other.reason:
        return
    if one.reason == "mem_access":
        clash = one.covers(other.first_gfn) or other.covers(one.first_gfn)
    else:
        clash = (one.index, one.msr) == (other.index, other.msr)
    if clash:
        raise UsageError(
            f"{one.text} and {other.text} overlap",
            why="Xen keeps one setting for each register and page",
            hint="write them as one",
        )
