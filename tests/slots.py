"""Slots made to order, for tests."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, Field, Interface, interface

if TYPE_CHECKING:
    from collections.abc import Mapping


def make_slot(
    layout: Interface,
    reason: int,
    *,
    version: int | None = None,
    vcpu_id: int = 0,
    paused: bool = False,
    flags: int = 0,
    payload: Mapping[str, int] | None = None,
    registers: Mapping[str, int] | None = None,
) -> bytes:
    """A request of one reason; what is not given is zero."""
    raw = bytearray(layout.slot_size)
    header = {"vcpu_id": vcpu_id, "reason": reason, "flags": flags | paused}
    if layout.version is not None:
        header["version"] = layout.version if version is None else version
    for name, value in header.items():
        if name in layout.header:
            _put(raw, layout.header[name], value)
    for name, value in (payload or {}).items():
        _put(raw, layout.payloads[layout.reasons[reason]][name], value)
    for name, value in (registers or {}).items():
        _put(raw, layout.registers[name], value)
    return bytes(raw)


def _put(raw: bytearray, field: Field, value: int) -> None:
    if field.bits:
        value = struct.unpack_from("<" + field.code, raw, field.offset)[0] | value << field.shift
    struct.pack_into("<" + field.code.replace("segment", "I"), raw, field.offset, value)


@st.composite
def interfaces(draw: st.DrawFn, family: str = "") -> Interface:
    """Any interface of a family, on any architecture."""
    ids = [one for one in INTERFACE_IDS if one.startswith(family)]
    return interface(draw(st.sampled_from(ids)), draw(st.sampled_from(ARCHITECTURES)))


@st.composite
def slots(draw: st.DrawFn) -> tuple[Interface, bytes]:
    """Any bytes in a slot; half of the time with a version and reason that exist."""
    layout = draw(interfaces())
    raw = bytearray(draw(st.binary(min_size=layout.slot_size, max_size=layout.slot_size)))
    if draw(st.booleans()) and layout.reasons:
        _put(raw, layout.header["reason"], draw(st.sampled_from(sorted(layout.reasons))))
        if layout.version is not None:
            _put(raw, layout.header["version"], layout.version)
    return layout, bytes(raw)
