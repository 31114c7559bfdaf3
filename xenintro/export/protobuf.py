"""Protocol buffers, as far as a writer of known messages needs them: fields as bytes.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct

from xenintro.units import U64_MAX

_VARINT, _FIXED64, _BYTES = 0, 1, 2


def varint(value: int) -> bytes:
    """A number of at most 64 bits, seven a byte, the least significant first; a negative one as 64 bits."""
    if value < 0:
        value &= U64_MAX
    if value < 0x4000:
        return _LAST[value]
    out = b""
    while value >= 0x4000:
        out += _PAIRS[value & 0x3FFF]
        value >>= 14
    return out + _LAST[value]


def number(field: int, value: int) -> bytes:
    """A field of type uint64, uint32, bool or enum, or one of type int64 that is not negative."""
    return varint(field << 3 | _VARINT) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    """A field of type fixed64."""
    return varint(field << 3 | _FIXED64) + struct.pack("<Q", value)


def double(field: int, value: float) -> bytes:
    """A field of type double."""
    return varint(field << 3 | _FIXED64) + struct.pack("<d", value)


def message(field: int, content: bytes) -> bytes:
    """A field that holds a message, encoded before."""
    return varint(field << 3 | _BYTES) + varint(len(content)) + content


def text(field: int, value: str) -> bytes:
    """A field of type string. What is no Unicode (a file may hold anything) is replaced."""
    return message(field, value.encode("utf-8", errors="replace"))


#: Fourteen bits that more follow, and the last fourteen: a fifth of the time that a loop over sevens takes.
_PAIRS = [bytes((value & 0x7F | 0x80, value >> 7 | 0x80)) for value in range(0x4000)]
_LAST = [bytes((value,) if value < 0x80 else (value & 0x7F | 0x80, value >> 7)) for value in range(0x4000)]
