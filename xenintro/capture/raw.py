"""Raw slots and ring pages from elsewhere, a crash dump for instance, as a capture."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, NamedTuple

from xenintro.abi import SLOT0, Interface
from xenintro.answered import Answered
from xenintro.capture.records import UNANSWERED
from xenintro.codec import decode
from xenintro.errors import DamagedInputError, UsageError
from xenintro.events import UnknownEvent
from xenintro.ringpage import RingPage
from xenintro.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.capture.writer import CaptureWriter
    from xenintro.events import Event

#: What a raw file may hold.
KINDS = ("pages", "slots")

#: Slots written at once.
_BATCH = 256


class Imported(NamedTuple):
    """What was taken from a raw file.

    Attributes:
        kind: ``pages`` or ``slots``.
        pages: whole ring pages.
        requests: without an answer: those between rsp_prod and req_prod of a page, or every slot.
        unknown: those among them that this interface cannot read.
        damage: why something could not be taken, or is doubtful; None if nothing is.
    """

    kind: str
    pages: int
    requests: int
    unknown: int
    damage: DamagedInputError | None


def import_raw(
    file: IO[bytes], writer: CaptureWriter, layout: Interface, *, kind: str | None = None, time_ns: int = 0
) -> Imported:
    """Copy a raw file into a capture: its pages as they are, its requests as requests without an answer.

    Args:
        file: whole ring pages, or slots one after the other.
        writer: of the capture.
        layout: of the slots.
        kind: what the file holds; None looks at its beginning.
        time_ns: when all of it was; raw bytes do not tell.

    Raises:
        UsageError: the file is empty.
        CaptureError: the capture cannot be written.
    """
    head = file.read(PAGE_SIZE)
    if not head:
        raise UsageError("nothing to import", why="the file is empty")
    kind = kind or _kind(head, layout)
    reader = _Reader(file, head)
    return (_import_pages if kind == "pages" else _import_slots)(reader, writer, layout, time_ns)


class _Reader:
    """Records of one size out of a file whose beginning was read already."""

    def __init__(self, file: IO[bytes], head: bytes) -> None:
        self._file = file
        self._held = head
        self.left = 0  # bytes at the end that are less than a record

    def records(self, size: int) -> Iterator[bytes]:
        while True:
            while len(self._held) < size and (more := self._file.read(1 << 20)):
                self._held += more
            whole = len(self._held) // size * size
            for at in range(0, whole, size):
                yield self._held[at : at + size]
            self._held = self._held[whole:]
            if not whole:
                self.left = len(self._held)
                return


def _import_pages(reader: _Reader, writer: CaptureWriter, layout: Interface, time_ns: int) -> Imported:
    pages = requests = unknown = bad = 0
    first = ""
    for raw in reader.records(PAGE_SIZE):
        writer.page(raw, time_ns)
        try:
            events = [decode(slot.raw, layout) for slot in RingPage(raw, layout).requests()]
        except DamagedInputError as error:
            first = first or f"page {pages}: {error.what} ({error.why})"
            bad += 1
        else:
            writer.write([_unanswered(event, time_ns) for event in events])
            requests += len(events)
            unknown += sum(isinstance(event, UnknownEvent) for event in events)
        pages += 1
    damage = None
    if bad:
        damage = DamagedInputError(
            f"{bad} of {pages} pages have impossible ring indices",
            why=first,
            hint="what is on them was kept as pages: xenintro inspect shows them; is --abi right?",
        )
    return Imported("pages", pages, requests, unknown, _torn(reader, PAGE_SIZE, "page") or damage)


def _import_slots(reader: _Reader, writer: CaptureWriter, layout: Interface, time_ns: int) -> Imported:
    requests = unknown = 0
    batch: list[Answered] = []
    for raw in reader.records(layout.slot_size):
        event = decode(raw, layout)
        unknown += isinstance(event, UnknownEvent)
        batch.append(_unanswered(event, time_ns))
        requests += 1
        if len(batch) == _BATCH:
            writer.write(batch)
            batch = []
    writer.write(batch)
    return Imported("slots", 0, requests, unknown, _torn(reader, layout.slot_size, "slot"))


def _torn(reader: _Reader, size: int, what: str) -> DamagedInputError | None:
    if not reader.left:
        return None
    return DamagedInputError(
        f"the last {what} is not whole",
        why=f"{reader.left} of {size} bytes",
        hint=f"the {what}s before it were taken",
    )


def _unanswered(event: Event, time_ns: int) -> Answered:
    return Answered(event, UNANSWERED, b"", time_ns, time_ns)


def _kind(head: bytes, layout: Interface) -> str:
    """What a file seems to hold: pages, unless it begins with a slot and not with a ring."""
    if len(head) < PAGE_SIZE:
        return "slots"
    try:
        RingPage(head, layout)
    except DamagedInputError:
        is_ring = False
    else:
        slots = (head[at : at + layout.slot_size] for at in (SLOT0, SLOT0 + layout.slot_size))
        is_ring = any(_is_slot(raw, layout) or not any(raw) for raw in slots)
    return "slots" if _is_slot(head[: layout.slot_size], layout) and not is_ring else "pages"


def _is_slot(raw: bytes, layout: Interface) -> bool:
    return bool(layout.reasons) and not isinstance(decode(raw, layout), UnknownEvent)
