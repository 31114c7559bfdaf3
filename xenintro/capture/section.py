"""One section of a capture: what its header and its interfaces say."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from xenintro.abi import interface
from xenintro.capture import blocks
from xenintro.capture.info import CaptureInfo
from xenintro.capture.records import SLOTS
from xenintro.codec import decoder
from xenintro.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.abi import Interface
    from xenintro.capture.blocks import Block
    from xenintro.events import Event

#: The end of time, for who keeps nanoseconds in 64 bits: the year 2262.
MOST_NS = (1 << 63) - 1

#: Interfaces of one section that are told apart; more are nobody's.
_MOST = 1024


class Described(NamedTuple):
    """An interface: the kind of its packets, the layout of its slots, how its times are to be read."""

    link_type: int
    layout: Interface | None
    decode: Callable[[bytes], Event] | None
    #: Ticks per second, and what is added in nanoseconds.
    resolution: int
    offset_ns: int

    def time_ns(self, ticks: int) -> int:
        """Nanoseconds since the epoch.

        Raises:
            ValueError: a time that cannot be.
        """
        if self.resolution != 1_000_000_000:
            ticks = ticks * 1_000_000_000 // self.resolution
        time_ns = ticks + self.offset_ns
        if not 0 <= time_ns <= MOST_NS:
            raise ValueError("a packet before 1970, or after 2262")
        return time_ns


class Section:
    """What one section says.

    Args:
        header: its first block; None before there was one.

    Attributes:
        info: what the header says; of the interfaces, where it says nothing. None if neither does.
        interfaces: in the order of their numbers.
        first: the number of the first that has slots.
        plain: reads the body of a packet block of that, if it is a slot without comments.
    """

    def __init__(self, header: Block | None = None) -> None:
        self.info = None if header is None else _info(header)
        self.interfaces: list[Described] = []
        self.first = 0
        self.plain: struct.Struct | None = None

    def describe(self, block: Block) -> None:
        """Add an interface.

        Raises:
            ValueError: the block cannot be read, or there are too many.
        """
        if len(block.body) < 8 or len(self.interfaces) >= _MOST:
            raise ValueError("an interface that cannot be read, or one too many")
        link_type = block.order.interface(block.body)[0]
        said = dict(block.options(8))
        resolution = said.get(blocks.IF_TSRESOL, b"\x06")[:1] or b"\x06"
        exponent = resolution[0] & 0x7F
        layout = None
        if link_type == SLOTS:
            if self.info is None:
                self.info = _described(said)
            layout = _layout(said) or (_layout_of(self.info) if self.info else None)
        offset = said.get(blocks.IF_TSOFFSET, bytes(8))
        seconds = block.order.i64(offset)[0] if len(offset) == 8 else 0
        ticks = 1 << exponent if resolution[0] & 0x80 else 10**exponent
        if layout is not None and self.plain is None:
            self.first = len(self.interfaces)
            self.plain = struct.Struct(f"{block.order.mark}{blocks.packet_layout(layout.slot_size)}I")
        decode = None if layout is None else decoder(layout)
        self.interfaces.append(Described(link_type, layout, decode, ticks, seconds * 10**9))


def _info(header: Block) -> CaptureInfo | None:
    """The comment that is the JSON of a `CaptureInfo`, and names a layout that there is."""
    try:
        texts = [value for code, value in header.options(16) if code == blocks.OPT_COMMENT]
    except ValueError:
        return None
    for text in texts:
        try:
            info = msgspec.json.decode(text, type=CaptureInfo)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if _layout_of(info) is not None:
            return info
    return None


def _layout_of(info: CaptureInfo) -> Interface | None:
    try:
        return interface(info.abi, info.arch, info.release)
    except UsageError:
        return None


def _described(said: dict[int, bytes]) -> CaptureInfo | None:
    """What an interface alone tells of the domain."""
    layout = _layout(said)
    if layout is None:
        return None
    name = said.get(blocks.IF_NAME, b"").decode("utf-8", errors="replace").split(":")
    return CaptureInfo(
        abi=layout.id,
        arch=layout.arch,
        release=layout.release,
        domain=name[1] if len(name) == 3 and name[0] == "xen" else None,
    )


def _layout(said: dict[int, bytes]) -> Interface | None:
    """The layout that an interface names: ``vm_event-7 x86_64``, and a release."""
    words = said.get(blocks.IF_DESCRIPTION, b"").decode("ascii", errors="replace").split()
    if not 2 <= len(words) <= 3:
        return None
    try:
        return interface(*words)
    except UsageError:
        return None
