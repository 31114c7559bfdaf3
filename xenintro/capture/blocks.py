"""pcapng blocks and options (draft-ietf-opsawg-pcapng): numbers, bytes to values and back. No I/O."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 1
INTERFACE_STATISTICS = 5
ENHANCED_PACKET = 6

BYTE_ORDER_MAGIC = 0x1A2B3C4D
UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF

#: The shortest block: type, length, length again.
SMALLEST = 12
#: What claims to be longer is taken for damage: 16 MiB of guest memory read by a policy are the most.
LARGEST = (16 << 20) + 128

OPT_END, OPT_COMMENT = 0, 1
SHB_HARDWARE, SHB_OS, SHB_USERAPPL = 2, 3, 4
IF_NAME, IF_DESCRIPTION, IF_TSRESOL, IF_TSOFFSET = 2, 3, 9, 14
EPB_FLAGS, EPB_PACKETID, EPB_QUEUE = 2, 5, 6
ISB_STARTTIME, ISB_ENDTIME, ISB_IFRECV, ISB_IFDROP = 2, 3, 4, 5

#: Two bits of epb_flags.
INBOUND, OUTBOUND, DIRECTION = 1, 2, 3

#: What an option's length, of 16 bits, can say.
LONGEST_OPTION = 0xFFFF

Options = list[tuple[int, bytes]]


def option(code: int, value: bytes) -> bytes:
    """One option, padded to four bytes."""
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def block(kind: int, body: bytes, options: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """A whole block; ``body`` is a multiple of four bytes long."""
    packed = b"".join(option(code, value) for code, value in options)
    if packed:
        packed += option(OPT_END, b"")
    length = struct.pack("<I", SMALLEST + len(body) + len(packed))
    return struct.pack("<I", kind) + length + body + packed + length


def section_header(options: Iterable[tuple[int, bytes]]) -> bytes:
    """The block that begins a file; the section's length is not known while it is written."""
    return block(SECTION_HEADER, struct.pack("<IHHQ", BYTE_ORDER_MAGIC, 1, 0, UNKNOWN_LENGTH), options)


def interface_description(link_type: int, options: Iterable[tuple[int, bytes]]) -> bytes:
    """An interface whose packets are never cut."""
    return block(INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, 0), options)


def interface_statistics(number: int, time_ns: int, options: Iterable[tuple[int, bytes]]) -> bytes:
    """Totals of an interface."""
    return block(INTERFACE_STATISTICS, struct.pack("<I", number) + timestamp(time_ns), options)


def timestamp(time_ns: int) -> bytes:
    """Nanoseconds since the epoch: the high half, then the low one."""
    return struct.pack("<II", time_ns >> 32, time_ns & 0xFFFFFFFF)


def packet_layout(size: int) -> str:
    """An Enhanced Packet Block without comments, from interface number to vCPU, as a struct format."""
    return f"IIIII{size}s{-size % 4}xHHIHHQHHI"


#: The options of such a block, each as its code and length.
PLAIN_OPTIONS = (EPB_FLAGS, 4, EPB_PACKETID, 8, EPB_QUEUE, 4)


class Packets:
    """Makes Enhanced Packet Blocks of one size on one interface; all but comments in one go.

    Args:
        interface: number of the interface description in the file.
        size: bytes of every packet.
    """

    def __init__(self, interface: int, size: int) -> None:
        layout = "<II" + packet_layout(size)
        self._interface = interface
        self._size = size
        self._head = struct.Struct(layout)
        self._whole = struct.Struct(layout + "II")

    def block(
        self, data: bytes, time_ns: int, direction: int, packet_id: int, queue: int, *comments: str
    ) -> bytes:
        """One packet, with the vCPU as its queue."""
        packed = b"".join(option(OPT_COMMENT, utf8(text, LONGEST_OPTION)) for text in comments)
        size, total = self._size, self._whole.size + len(packed)
        high, low = time_ns >> 32, time_ns & 0xFFFFFFFF
        head = (ENHANCED_PACKET, total, self._interface, high, low, size, size, data)
        # A vCPU's number is signed in mem_event, and may be any in what a broken monitor recorded.
        options = (EPB_FLAGS, 4, direction, EPB_PACKETID, 8, packet_id, EPB_QUEUE, 4, queue & 0xFFFFFFFF)
        if packed:
            return self._head.pack(*head, *options) + packed + struct.pack("<II", OPT_END, total)
        return self._whole.pack(*head, *options, OPT_END, total)


def utf8(text: str, limit: int) -> bytes:
    """Text as UTF-8, cut between characters to so many bytes."""
    data = text.encode("utf-8", errors="replace")
    return data if len(data) <= limit else data[:limit].decode("utf-8", errors="ignore").encode()


class Order:
    """How numbers are read in a section: ``<`` or ``>``."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.u32 = struct.Struct(f"{mark}I").unpack_from
        self.head = struct.Struct(f"{mark}II").unpack_from
        self.i64 = struct.Struct(f"{mark}q").unpack_from
        self.u64 = struct.Struct(f"{mark}Q").unpack_from
        self.interface = struct.Struct(f"{mark}HHI").unpack_from
        self.packet = struct.Struct(f"{mark}IIIII").unpack_from
        self.option = struct.Struct(f"{mark}HH").unpack_from
        self.time = struct.Struct(f"{mark}II").unpack_from
        self.magic = struct.pack(f"{mark}I", BYTE_ORDER_MAGIC)
        self.packet_type = struct.pack(f"{mark}I", ENHANCED_PACKET)
        self.statistics_type = struct.pack(f"{mark}I", INTERFACE_STATISTICS)


ORDERS = (Order("<"), Order(">"))


class Block(NamedTuple):
    """A block as it was found: ``body`` is all between its two lengths, ``at`` its offset in the stream."""

    kind: int
    body: bytes
    order: Order
    at: int

    def options(self, start: int) -> Iterator[tuple[int, bytes]]:
        """The options from an offset in the body on.

        Raises:
            ValueError: one reaches beyond the block.
        """
        body, at, unpack = self.body, start, self.order.option
        end = len(body)
        while at < end:
            if end - at < 4:
                raise ValueError("an option without its length")
            code, size = unpack(body, at)
            if code == OPT_END:
                return
            at += 4
            if size > end - at:
                raise ValueError("an option that is longer than its block")
            yield code, body[at : at + size]
            at += size + (-size % 4)
