"""The human line: fixed columns that drop from the least important when the terminal is narrow."""

from __future__ import annotations

import datetime
from functools import lru_cache
from typing import Protocol

from xenintro.events import (
    Cpuid,
    DebugException,
    DescriptorAccess,
    Event,
    Interrupt,
    IoInstruction,
    MemAccess,
    MemPaging,
    MemSharing,
    MovToMsr,
    Singlestep,
    SoftwareBreakpoint,
    UnknownEvent,
    Vmexit,
    WriteCtrlreg,
)
from xenintro.units import format_ns

_INVALID_GFN = (1 << 64) - 1

#: Columns with their widths, and the order in which they go when there is no room. "what" shrinks first,
#: to the width of a memory access; a longer text pushes its line out of the columns rather than lose digits.
_WIDTHS = {"time": 15, "vcpu": 4, "event": 19, "what": 60, "where": 21, "answer": 8, "pause": 8}
_WHAT_AT_LEAST = 43
_DROPPED_FIRST = ("where", "time", "pause")
#: What a rule says stands behind the columns, in what is left: a few characters say nothing.
_NOTE, _NOTE_AT_LEAST = 26, 10


class Palette(Protocol):
    """Colours of a stream; `xenintro_cli.style.Style` is one."""

    color: bool
    arrow: str
    micro: str
    dots: str

    def event(self, text: str, reason: str) -> str:
        """The event's name in the hue of its kind."""

    def dim(self, text: str) -> str:
        """What matters least."""

    def alarm(self, text: str) -> str:
        """What must not be overlooked."""


class Lines:
    """Formats events for one stream.

    Args:
        palette: colours and characters.
        width: columns of the terminal; None for no limit.
        noted: events come with what rules say of them: the columns leave some room.
    """

    def __init__(self, palette: Palette, width: int | None, *, noted: bool = False) -> None:
        self._palette = palette
        self._width = width
        self._widths = _fitting(width, noted=noted)
        self._template = "  ".join(
            f"{{{name}:{'>' if name == 'pause' else '<'}{width}}}" for name, width in self._widths.items()
        )

    def header(self) -> str:
        """The names of the columns."""
        return self._palette.dim(self._template.format_map({name: name for name in _WIDTHS}).rstrip())

    def line(
        self,
        event: Event,
        *,
        time_ns: int | None,
        answer: str | None,
        pause_ns: int | None,
        note: str = "",
    ) -> str:
        """One event. Times are nanoseconds, since the epoch for ``time_ns``; None where unknown.

        ``note`` is what a rule says, shown as far as there is room.
        """
        palette = self._palette
        cells = {
            "time": _clock(time_ns) if time_ns is not None else "-",
            "vcpu": f"v{event.vcpu_id}",
            "event": event.reason,
            "what": what(event, palette.arrow),
            "where": where(event),
            "answer": "-" if answer is None else answer if answer.startswith("allow") else answer.upper(),
            "pause": "-" if pause_ns is None else format_ns(pause_ns).replace("µ", palette.micro),
        }
        if note:
            note = self._fitted(note, len(self._template.format_map(cells)))
        if palette.color:
            self._paint(cells, event.reason, answer)
            note = note if answer in (None, "allow") else palette.alarm(note)
        return f"{self._template.format_map(cells)}  {note}".rstrip()

    def _fitted(self, note: str, used: int) -> str:
        """As much of a note as there is room for."""
        note = "".join(one if one.isprintable() else " " for one in note)
        room = len(note) if self._width is None else self._width - used - 2
        if room < min(_NOTE_AT_LEAST, len(note)):
            return ""
        dots = self._palette.dots
        return note if len(note) <= room else note[: room - len(dots)] + dots

    def _paint(self, cells: dict[str, str], reason: str, answer: str | None) -> None:
        """Colour the cells, padded before: a terminal's escapes have no width."""
        palette = self._palette
        cells["event"] = palette.event(f"{reason:{_WIDTHS['event']}}", reason)
        text = f"{cells['answer']:{self._widths['answer']}}"
        cells["answer"] = palette.dim(text) if answer in (None, "allow") else palette.alarm(text)
        cells["time"] = palette.dim(f"{cells['time']:{_WIDTHS['time']}}")
        cells["pause"] = palette.dim(f"{cells['pause']:>{_WIDTHS['pause']}}")


def what(event: Event, arrow: str) -> str:
    """The payload in a few words; ``arrow`` goes from an old value to the new one."""
    match event:
        case MemAccess():
            letters = "".join(letter if letter in event.access else "-" for letter in "rwx")
            gla = f"  gla {address(event.gla)}" if event.gla_valid else ""
            walk = "  page walk" if event.fault_in_gpt else ""
            return f"{letters}  gfn {event.gfn:#x}+{event.offset:03x}{gla}{walk}"
        case WriteCtrlreg() | MovToMsr():
            old = "?" if event.old_value is None else f"{event.old_value:#x}"
            return f"{event.register}  {old} {arrow} {event.new_value:#x}"
        case Cpuid():
            return f"leaf {event.leaf:#x}  subleaf {event.subleaf:#x}"
        case SoftwareBreakpoint() | Singlestep() | MemPaging() | MemSharing():
            return _gfn(event.gfn)
        case DebugException():
            pending = "" if not event.pending_dbg else f"  pending {event.pending_dbg:#x}"
            return f"{_gfn(event.gfn)}  type {event.type}{pending}"
        case DescriptorAccess():
            return f"{event.register}  {'write' if event.is_write else 'read'}"
        case Interrupt():
            return f"vector {event.vector:#x}  type {event.type}"
        case Vmexit():
            return f"exit {event.exit_reason}  qualification {event.qualification:#x}"
        case IoInstruction():
            return f"{'in' if event.is_in else 'out'}  port {event.port:#x}  {event.bytes} bytes"
        case UnknownEvent():
            version = "" if event.version is None else f"  version {event.version}"
            return f"reason {event.reason_code}{version}  {len(event.raw)} bytes"
    return ""


def where(event: Event) -> str:
    """The instruction that caused the event, ``-`` where the snapshot does not say."""
    interface = event.interface
    name = "rip" if interface.arch == "x86_64" else "pc"
    counter = event.registers.get(name)
    if not isinstance(counter, int) or event.version != interface.version:
        return "-"
    return f"{name} {address(counter)}"


def address(value: int) -> str:
    """A guest linear address: 16 digits, grouped."""
    return f"{value >> 32:08x}'{value & 0xFFFFFFFF:08x}"


def _gfn(gfn: int) -> str:
    return "gfn ?" if gfn == _INVALID_GFN else f"gfn {gfn:#x}"


def _clock(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{fraction // 1000:06d}"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds).astimezone():%H:%M:%S}"


def _fitting(width: int | None, *, noted: bool) -> dict[str, int]:
    widths = dict(_WIDTHS)
    if noted:
        widths["answer"] = len("would deny")
    if width is None:
        return widths
    for dropped in (*_DROPPED_FIRST, None):
        room = width - sum(widths.values()) - 2 * (len(widths) - 1) + widths["what"]
        if noted and "where" in widths:
            room -= _NOTE
        if room >= _WHAT_AT_LEAST or dropped is None:
            break
        del widths[dropped]
    widths["what"] = max(min(room, _WHAT_AT_LEAST if noted else widths["what"]), 0)
    return widths
