"""Events as columns: what tables of events have in common, whatever the interface and the format.

The names are those of the JSON line (docs/json.md). Of mem_event's own header members only those are here
that vm_event has too.
"""

from __future__ import annotations

from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from xenintro.abi import interface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from xenintro.abi import Field
    from xenintro.answered import Answered
    from xenintro.events import Event


class Kind(Enum):
    """What is in a column."""

    U64 = "a number of 64 bits"
    U32 = "a number of 32 bits or fewer"
    I64 = "a signed number"
    BOOL = "yes or no"
    NAME = "one of a few texts"
    TEXT = "any text"


class Member(NamedTuple):
    """A member of a payload.

    Attributes:
        attribute: of the event.
        kind: what is in the column.
        of: the attribute that it is worked out from, if it is no member of the header.
    """

    attribute: str
    kind: Kind
    of: str = ""


def _members(names: str, kind: Kind, of: str = "") -> dict[str, Member]:
    """From names separated by spaces; ``name=attribute`` where the two differ."""
    pairs = (item.partition("=") for item in names.split())
    return {name: Member(attribute or name, kind, of) for name, _, attribute in pairs}


#: Columns that every event has.
COMMON: Mapping[str, Kind] = {
    "abi": Kind.NAME,
    "arch": Kind.NAME,
    "vcpu_id": Kind.I64,
    "reason": Kind.NAME,
    "flags": Kind.NAME,
    "altp2m_idx": Kind.U32,
    "answer": Kind.NAME,
    "rule": Kind.NAME,
    "message": Kind.TEXT,
    "level": Kind.NAME,
    "tags": Kind.NAME,
    "would": Kind.NAME,
    "late": Kind.BOOL,
    "pause_ns": Kind.I64,
}

#: Payload members by reason; guest_request, privileged_call and emul_unimplemented have none.
PAYLOADS: Mapping[str, Mapping[str, Member]] = {
    "mem_access": {
        **_members("gfn offset gla", Kind.U64),
        **_members("flags=access_flags", Kind.U32),
        **_members("access", Kind.NAME, of="access_flags"),
        **_members("gla_valid fault_with_gla fault_in_gpt", Kind.BOOL, of="access_flags"),
    },
    "mem_paging": {**_members("gfn p2mt", Kind.U64), **_members("flags=paging_flags", Kind.U32)},
    "mem_sharing": {**_members("gfn", Kind.U64), **_members("p2mt", Kind.U32)},
    "write_ctrlreg": {
        **_members("index", Kind.U32),
        **_members("register", Kind.NAME, of="index"),
        **_members("new_value old_value", Kind.U64),
    },
    "mov_to_msr": {
        **_members("msr", Kind.U64),
        **_members("register", Kind.NAME, of="msr"),
        **_members("new_value old_value", Kind.U64),
    },
    "software_breakpoint": {
        **_members("gfn pending_dbg", Kind.U64),
        **_members("insn_length type", Kind.U32),
    },
    "debug_exception": {**_members("gfn pending_dbg", Kind.U64), **_members("insn_length type", Kind.U32)},
    "singlestep": _members("gfn", Kind.U64),
    "cpuid": _members("insn_length leaf subleaf", Kind.U32),
    "interrupt": {**_members("vector type error_code", Kind.U32), **_members("cr2", Kind.U64)},
    "descriptor_access": {
        **_members("descriptor is_write instr_info", Kind.U32),
        **_members("register", Kind.NAME, of="descriptor"),
        **_members("exit_qualification", Kind.U64),
    },
    "vmexit": _members("reason=exit_reason qualification", Kind.U64),
    "io_instruction": _members("bytes port in=is_in str=is_str", Kind.U32),
    "unknown": {**_members("version reason_code", Kind.U32), **_members("raw", Kind.TEXT)},
}


#: 32 bits on the oldest interfaces of Arm.
_WIDE = frozenset({"cpsr"})


class Register(NamedTuple):
    """A register's column: where it lies, and which bits of it."""

    name: str
    field: Field
    kind: Kind
    shift: int = 0
    mask: int = 0


def registers_of(fields: Mapping[str, Field]) -> tuple[Register, ...]:
    """The columns of an interface's register block; a segment has two, ``cs.limit`` and ``cs.ar``."""
    return tuple(_registers(fields))


def _registers(fields: Mapping[str, Field]) -> Iterator[Register]:
    for name, field in fields.items():
        if field.code == "segment":
            yield Register(f"{name}.limit", field, Kind.U32, 0, 0xFFFFF)
            yield Register(f"{name}.ar", field, Kind.U32, 20, 0xFFF)
        else:
            yield Register(name, field, Kind.U64 if name in _WIDE or field.code == "Q" else Kind.U32)


def common(batch: Sequence[Answered]) -> dict[str, list[Any]]:
    """The columns of `COMMON`."""
    events = [answered.event for answered in batch]
    said = [_said(answered) for answered in batch]
    return {
        "abi": [event.interface.id for event in events],
        "arch": [event.interface.arch for event in events],
        "vcpu_id": [event.vcpu_id for event in events],
        "reason": [event.reason for event in events],
        "flags": _worked_out(events, "flags", lambda event: ",".join(event.flag_names)),
        "altp2m_idx": [event.altp2m_idx for event in events],
        "answer": [answered.answer for answered in batch],
        "rule": [rule for rule, _, _, _ in said],
        "message": [message for _, message, _, _ in said],
        "level": [level for _, _, level, _ in said],
        "tags": [tags for _, _, _, tags in said],
        "would": [answered.would for answered in batch],
        "late": [answered.late for answered in batch],
        "pause_ns": [answered.pause_ns for answered in batch],
    }


_NOTHING_SAID = (None, None, None, None)


def _said(answered: Answered) -> tuple[str | None, ...]:
    rule = answered.rule
    if rule is None:
        return _NOTHING_SAID
    return rule.name, rule.message(answered.event) or None, rule.level, ",".join(rule.tags) or None


def payload(events: Sequence[Event]) -> dict[str, list[Any]]:
    """The columns of a reason's payload; the events are all of one reason."""
    columns = {}
    for name, member in PAYLOADS.get(events[0].reason, {}).items():
        read = attrgetter(member.attribute)
        if name == "raw":
            columns[name] = [event.raw.hex() for event in events]
        elif member.of:
            columns[name] = _worked_out(events, member.of, read)
        else:
            columns[name] = [read(event) for event in events]
    return columns


def _worked_out(events: Iterable[Event], of: str, read: Callable[[Event], Any]) -> list[Any]:
    """What depends on one attribute is worked out once for each of its values."""
    known: dict[int, Any] = {}
    key_of = attrgetter(of)
    values = []
    for event in events:
        key = key_of(event)
        if key not in known:
            known[key] = read(event)
        values.append(known[key])
    return values


def has_registers(event: Event) -> bool:
    """Whether the slot carries a snapshot that the interface describes."""
    return bool(event.interface.registers) and event.version == event.interface.version


def all_registers() -> dict[str, Kind]:
    """Every register of every interface and architecture: the newest have all but one of the oldest."""
    layouts = (interface("vm_event-7"), interface("mem_event-4.5"), interface("vm_event-7", "arm64"))
    return {one.name: one.kind for layout in layouts for one in registers_of(layout.registers)}
