"""Bytes to events, responses to bytes. Nothing here does I/O; every function takes and returns one slot."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from xenintro.abi import Flag, Interface
from xenintro.errors import DamagedInputError
from xenintro.events import EVENT_TYPES, VCPU_PAUSED, Event, UnknownEvent

if TYPE_CHECKING:
    from xenintro.response import Response

_STRUCTS = {code: struct.Struct(f"<{code}") for code in "HIQ"}
_U16, _U32, _U64 = (_STRUCTS[code] for code in "HIQ")

#: Flags that come with data elsewhere in the slot.
_WITH_DATA = int(
    Flag.ALTERNATE_P2M
    | Flag.SET_REGISTERS
    | Flag.SET_EMUL_READ_DATA
    | Flag.SET_EMUL_INSN_DATA
    | Flag.FAST_SINGLESTEP
)

#: Members of `Event` after ``raw`` and ``interface``, in order.
_COMMON = ("version", "flags", "reason_code", "vcpu_id", "altp2m_idx")

#: Header member read for an event's member, where the names differ.
_MEMBERS = {
    ("mem_access", "access_flags"): ("flags",),
    ("mov_to_msr", "new_value"): ("new_value", "value"),
    ("mem_paging", "paging_flags"): ("flags",),
    ("vmexit", "exit_reason"): ("reason",),
    ("io_instruction", "is_in"): ("in",),
    ("io_instruction", "is_str"): ("str",),
}

_Decoder = Callable[[bytes], Event]


def decode(raw: bytes, interface: Interface) -> Event:
    """The event in a request slot. An unknown reason or another version gives an `UnknownEvent`.

    Args:
        raw: a whole slot, ``interface.slot_size`` bytes.
        interface: the layout that the running hypervisor speaks.

    Raises:
        DamagedInputError: ``raw`` is not one slot long.
    """
    return decoder(interface)(raw)


@cache
def decoder(interface: Interface) -> _Decoder:
    """`decode` for one interface, with everything looked up in advance."""
    size = interface.slot_size
    unknown = _builder(interface, UnknownEvent, None)
    by_reason = {
        code: _builder(interface, EVENT_TYPES[name], code) for code, name in interface.reasons.items()
    }
    reason = interface.header.get("reason")
    if reason is None:  # mem_event of Xen 4.0: the paging ring only
        only = _builder(interface, EVENT_TYPES["mem_paging"], None)
        return lambda raw: only(_checked(raw, size))
    unpack_reason = struct.Struct(f"<{reason.code}").unpack_from
    reason_offset = reason.offset
    version = interface.version
    unpack_version = _U32.unpack_from

    def decode_one(raw: bytes) -> Event:
        if len(raw) != size:
            raise _wrong_size(raw, size)
        if version is not None and unpack_version(raw)[0] != version:
            return unknown(raw)
        return by_reason.get(unpack_reason(raw, reason_offset)[0], unknown)(raw)

    return decode_one


def encode(event: Event, response: Response) -> bytes:
    """The response slot: zeroes, the header, the payload echoed, and what the response asks for.

    The caller has checked that the response is legal (`xenintro.legality`).

    Raises:
        DamagedInputError: emulation data does not fit the slot.
    """
    if type(event) is UnknownEvent:
        return acknowledge(event.raw, event.interface)
    plain = _encoder(event.interface)(event, response.flags)
    if not response.flags & _WITH_DATA:
        return plain
    out = bytearray(plain)
    _put_data(out, event, response, event.interface)
    return bytes(out)


def acknowledge(raw: bytes, interface: Interface) -> bytes:
    """The least response to any request, known or not: version, reason, vcpu_id and VCPU_PAUSED.

    mem_event adds the gfn, by which Xen 4.1 to 4.4 finds what was asked for.
    """
    return bytes(_acknowledger(interface)(raw))


def unpause(interface: Interface, vcpu_id: int) -> bytes:
    """A response that belongs to no request: it unpauses the vCPU if a request of it was never answered."""
    out = bytearray(interface.slot_size)
    header = interface.header
    _U32.pack_into(out, header["vcpu_id"].offset, vcpu_id)
    _STRUCTS[header["flags"].code].pack_into(out, header["flags"].offset, VCPU_PAUSED)
    if interface.version is not None:
        _U32.pack_into(out, header["version"].offset, interface.version)
    return bytes(out)


@cache
def _acknowledger(interface: Interface) -> Callable[[bytes], bytearray]:
    """Copies the echoed header members; vm_event's whole header lies before the payload."""
    size = interface.slot_size
    if interface.family == "vm_event":
        unpack = struct.Struct("<IIII").unpack_from
        pack = struct.Struct("<IIII").pack_into

        def vm_event(raw: bytes) -> bytearray:
            version, flags, reason, vcpu_id = unpack(raw)
            out = bytearray(size)
            pack(out, 0, version, flags & 1, reason, vcpu_id)
            return out

        return vm_event
    flags = interface.header["flags"]
    echoed = [interface.header[name] for name in ("vcpu_id", "reason") if name in interface.header]
    if "reason" in interface.header:
        echoed.append(interface.payloads["mem_access"]["gfn"])

    def mem_event(raw: bytes) -> bytearray:
        out = bytearray(size)
        for field in echoed:
            out[field.offset : field.offset + field.size] = raw[field.offset : field.offset + field.size]
        out[flags.offset] = raw[flags.offset] & VCPU_PAUSED
        return out

    return mem_event


@cache
def _encoder(interface: Interface) -> Callable[[Event, int], bytes]:
    """Makes a response of an event and response flags: header and echoed payload, all else zero."""
    start, size = interface.payload
    end = start + size
    if interface.family == "vm_event":
        layout = struct.Struct(f"<IIII{start - 16}x{size}s{interface.slot_size - end}x")
        pack = layout.pack
        return lambda event, flags: pack(
            *(event.version, event.flags & VCPU_PAUSED | flags, event.reason_code, event.vcpu_id),
            event.raw[start:end],
        )
    field = interface.header["flags"]
    acknowledged = _acknowledger(interface)

    def mem_event(event: Event, flags: int) -> bytes:
        out = acknowledged(event.raw)
        out[start:end] = event.raw[start:end]
        wire = interface.flags_to_wire(flags) | (event.flags & VCPU_PAUSED)
        _STRUCTS[field.code].pack_into(out, field.offset, wire)
        return bytes(out)

    return mem_event


def _put_data(out: bytearray, event: Event, response: Response, interface: Interface) -> None:
    """What a response carries beyond its flags."""
    if response.altp2m_idx is not None:
        _U16.pack_into(out, interface.header["altp2m_idx"].offset, response.altp2m_idx)
    if response.registers is not None and interface.registers_block is not None:
        offset, size = interface.registers_block
        # Xen takes all of the general registers from the response: send the whole snapshot back.
        out[offset : offset + size] = event.raw[offset : offset + size]
        for name, value in response.registers.items():
            _U64.pack_into(out, interface.registers[name].offset, value)
    if response.read_data is not None and interface.emul_read is not None:
        offset, size = interface.emul_read
        _U32.pack_into(out, offset, len(response.read_data))
        _put(out, offset + 4, response.read_data, size - 4)
    if response.insn_data is not None and interface.emul_insn is not None:
        _put(out, interface.emul_insn[0], response.insn_data, interface.emul_insn[1])
    if response.fast_singlestep_view is not None and interface.fast_singlestep_p2midx is not None:
        _U16.pack_into(out, interface.fast_singlestep_p2midx.offset, response.fast_singlestep_view)


def _put(out: bytearray, offset: int, data: bytes, room: int) -> None:
    if len(data) > room:
        raise DamagedInputError(f"{len(data)} bytes of emulation data do not fit", why=f"room for {room}")
    out[offset : offset + len(data)] = data


def _checked(raw: bytes, size: int) -> bytes:
    if len(raw) != size:
        raise _wrong_size(raw, size)
    return raw


def _wrong_size(raw: bytes, size: int) -> DamagedInputError:
    return DamagedInputError(f"a slot of {len(raw)} bytes", why=f"this interface's slots have {size} bytes")


def _builder(interface: Interface, kind: type[Event], reason_code: int | None) -> _Decoder:
    """A function from a slot to an event of one kind: one unpack, one reordering, one constructor."""
    return _assemble(interface, kind, *member_places(interface, kind, reason_code))


def member_places(
    interface: Interface, kind: type[Event], reason_code: int | None
) -> tuple[dict[str, tuple[int, str]], dict[str, int | None]]:
    """Where an event's members lie in the slot, as (offset, struct code); and those that lie nowhere.

    The latter are constants of the reason (mem_event: which control register), None where the interface
    does not tell.
    """
    header = interface.header
    payload = interface.payloads.get(kind.reason, {})
    sources: dict[str, tuple[int, str]] = {}
    constants: dict[str, int | None] = {}
    for member in kind.__struct_fields__[2:]:
        field = header.get({"reason_code": "reason"}.get(member, member)) if member in _COMMON else None
        if member not in _COMMON:
            names = _MEMBERS.get((kind.reason, member), (member,))
            field = next((payload[name] for name in names if name in payload), None)
            if member == "access_flags" and "access_r" in payload:
                field = payload["access_r"]  # mem_event: the same bits, in one 16-bit word
        if member == "index" and reason_code is not None and reason_code in interface.register_index:
            constants[member] = interface.register_index[reason_code]
        elif field is None:
            constants[member] = None
        else:
            sources[member] = (field.offset, field.code)
    return sources, constants


def _assemble(
    interface: Interface,
    kind: type[Event],
    sources: dict[str, tuple[int, str]],
    constants: dict[str, int | None],
) -> _Decoder:
    # Two members may come from one place (mem_event: gla is the MSR's number): one read each.
    places = sorted(set(sources.values()))
    layout, at = "<", 0
    for offset, code in places:
        layout += f"{offset - at}x{code}"
        at = offset + struct.calcsize(code)
    unpack = struct.Struct(layout).unpack_from
    members = kind.__struct_fields__[2:]
    pool = list(constants)
    tail = tuple(constants.values())
    order = [
        places.index(sources[member]) if member in sources else len(places) + pool.index(member)
        for member in members
    ]
    build: Callable[..., Event] = kind
    if order == list(range(len(places))):
        return lambda raw: build(raw, interface, *unpack(raw))
    permute: Callable[[tuple[Any, ...]], tuple[Any, ...]] = itemgetter(*order)
    if "access_flags" in kind.__struct_fields__ and interface.family == "mem_event":
        mask = access_mask(interface)
        last = len(order) - 1

        def masked(raw: bytes) -> Event:
            values = permute(unpack(raw) + tail)
            return build(raw, interface, *values[:last], values[last] & mask)

        return masked
    return lambda raw: build(raw, interface, *permute(unpack(raw) + tail))


def access_mask(interface: Interface) -> int:
    """Bits of mem_event's access word that the release defines; the rest is padding with stale bytes."""
    fields = interface.payloads["mem_access"].values()
    return sum(1 << field.shift for field in fields if field.bits)
