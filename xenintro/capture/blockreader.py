"""Finds the blocks of a pcapng stream, in constant memory, and the next whole one after a damaged place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xenintro.capture.blocks import (
    ENHANCED_PACKET,
    INTERFACE_STATISTICS,
    LARGEST,
    ORDERS,
    SECTION_HEADER,
    SMALLEST,
    Block,
    Order,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.capture.stream import Stream

_SECTION = SECTION_HEADER.to_bytes(4, "little")  # a palindrome: it reads the same in both orders
_SECTION_SIZE = 28


class BlockReader:
    """The blocks of a stream, one after the other.

    Args:
        stream: to read from.

    Attributes:
        interfaces: how many the present section has; its user counts them. After damage, only a packet of
            one of them is taken for a packet.
        damages: how many places could not be read.
        first_damage: where the first is, and what is wrong there; empty if nothing is.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer, self._at = b"", 0
        self._base = 0  # offset of the buffer in the stream
        self._order: Order = ORDERS[0]
        self.interfaces = 0
        self.damages = 0
        self.first_damage = ""

    def __iter__(self) -> Iterator[Block]:
        while self._have(1):
            # A whole packet in the buffer is what nearly every block is.
            at, buffer, order = self._at, self._buffer, self._order
            left = len(buffer) - at
            if left >= SMALLEST:
                kind, size = order.head(buffer, at)
                if (
                    kind == ENHANCED_PACKET
                    and SMALLEST <= size <= left
                    and size % 4 == 0
                    and order.u32(buffer, at + size - 4)[0] == size
                ):
                    self._at = at + size
                    yield Block(kind, buffer[at + 8 : at + size - 4], order, self._base + at)
                    continue
            wrong = self._wrong()
            at = self._at  # the buffer moves while it is filled
            if wrong:
                self.damaged(self._base + at, wrong)
                if not self._resynchronise():
                    return
                continue
            kind, size = self._order.head(self._buffer, at)
            self._at += size
            yield Block(kind, self._buffer[at + 8 : at + size - 4], self._order, self._base + at)

    def damaged(self, at: int, what: str) -> None:
        """Note that something cannot be read: the offset of its block in the stream, and why."""
        self.damages += 1
        self.first_damage = self.first_damage or f"at byte {at}: {what}"

    def begins(self) -> bytes:
        """The first bytes of the stream, to tell what it is when it is no pcapng."""
        self._have(4)
        return self._buffer[:4]

    def _wrong(self) -> str:
        """What is wrong with the block at hand; nothing if it is whole."""
        if not self._have(SMALLEST):
            return "the end of a block is missing"
        if self._buffer.startswith(_SECTION, self._at) and (wrong := self._section()):
            return wrong
        size: int = self._order.u32(self._buffer, self._at + 4)[0]
        if size < SMALLEST or size % 4 or size > LARGEST:
            return f"a block cannot be {size} bytes long"
        if not self._have(size):
            return "the end of a block is missing"
        if self._order.u32(self._buffer, self._at + size - 4)[0] != size:
            return "the two lengths of a block differ"
        return ""

    def _section(self) -> str:
        """Look how numbers are written in the section that begins."""
        magic = self._buffer[self._at + 8 : self._at + 12]
        for order in ORDERS:
            if order.magic == magic:
                self._order = order
                return ""
        return "a section without its byte order"

    def _resynchronise(self) -> bool:
        """Go to the next whole block of a kind that can be told; False if there is none."""
        order = self._order
        kinds = (order.packet_type, order.statistics_type, _SECTION)
        pattern = re.compile(b"|".join(map(re.escape, kinds)))
        self._at += 1
        while self._have(4):
            match = pattern.search(self._buffer, self._at)
            if match is None:
                self._at = len(self._buffer) - 3
                continue
            self._at = match.start()
            if self._plausible():
                return True
            self._order = order
            self._at += 1
        self._at = len(self._buffer)
        return False

    def _plausible(self) -> bool:
        """Whether a block begins here: by both its lengths, and by what is in it."""
        if self._wrong():
            return False
        buffer, at, order = self._buffer, self._at, self._order
        kind, size = order.u32(buffer, at)[0], order.u32(buffer, at + 4)[0]
        if kind == SECTION_HEADER:
            return bool(size >= _SECTION_SIZE)
        if size < 24 or order.u32(buffer, at + 8)[0] >= self.interfaces:
            return False
        if kind == INTERFACE_STATISTICS:
            return True
        return bool(kind == ENHANCED_PACKET and size >= 32 and order.u32(buffer, at + 20)[0] <= size - 32)

    def _have(self, size: int) -> bool:
        """Have so many bytes in the buffer; False if the stream ends before."""
        left = len(self._buffer) - self._at
        if left >= size:
            return True
        parts = [self._buffer[self._at :]]
        while left < size and (data := self._stream.read()):
            parts.append(data)
            left += len(data)
        self._base += self._at
        self._buffer, self._at = b"".join(parts), 0
        return left >= size
