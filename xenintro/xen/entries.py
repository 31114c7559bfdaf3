"""What stands in a journal: pauses, a header, and changes, one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from xenintro.xen.undo import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenintro.xen.domains import DomainInfo

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

#: The first line, always as long as this; Xen counts up to 255 pauses.
PAUSES = '{{"pauses":{:3},"maybe":{}}}\n'
_decode_change = msgspec.json.Decoder(Change).decode


class Header(msgspec.Struct, frozen=True, omit_defaults=False):
    """Who attached to what.

    Attributes:
        uuid, domid, name, nr_vcpus: of the domain.
        boot_id: of the control domain's kernel; under another one nothing of that time is left.
        pid: of the process that attached.
        interface: layout of the ring.
        paused: somebody else had paused the domain.
        v: version of the format.
    """

    uuid: str
    domid: int
    name: str | None
    nr_vcpus: int
    boot_id: str
    pid: int
    interface: str
    paused: bool
    v: int = 1


class Entries:
    """What a journal holds.

    Attributes:
        header: None if its process died before it touched the domain.
        pauses: taken and not given back, for certain.
        maybe: 1 while one more is being taken or given back.
        port: Xen's end of the ring's event channel, None until there was one.
        enabling: its process died while Xen made it a ring, which may be there.
        changes: in the order they were made.
        unknown: whether there are lines that only a newer xenintro understands.
    """

    def __init__(self, header: Header | None = None, changes: Sequence[Change] = ()) -> None:
        self.header = header
        self.pauses = 0
        self.maybe = 0
        self.port: int | None = None
        self.enabling = False
        self.changes: list[Change] = list(changes)
        self.unknown = False

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a journal. A torn last line does not count, nor does what follows damage."""
        entries = cls()
        complete = data.split(b"\n")[:-1]
        try:
            counts = msgspec.json.decode(complete[0])
            entries.pauses, entries.maybe = counts["pauses"], counts["maybe"]
            entries.header = msgspec.json.decode(complete[1], type=Header)
        except (IndexError, KeyError, TypeError, msgspec.DecodeError):
            return cls()
        for line in complete[2:]:
            entries._add(line)
        return entries

    @property
    def has_ring(self) -> bool:
        """Whether a ring that the domain has is its process's own."""
        return self.port is not None or self.enabling

    def is_about(self, info: DomainInfo) -> bool:
        """Whether it is about this very domain: a UUID survives a reboot of the guest, and of the host."""
        header = self.header
        return header is not None and (header.domid, header.boot_id) == (info.domid, boot_id())

    def _add(self, line: bytes) -> None:
        try:
            if b'"undo"' in line:
                self.changes.append(_decode_change(line))
            else:
                self.port = msgspec.json.decode(line)["port"]
        except (KeyError, TypeError, msgspec.DecodeError):
            self.unknown = True


def lines(*entries: object) -> bytes:
    """One JSON object a line."""
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)


def boot_id() -> str:
    """Which run of the control domain's kernel this is."""
    return _BOOT_ID.read_text().strip()
