"""Whether a replay gives the recorded answers, and in which words they differ."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from xenintro.codec import decode
from xenintro.sinks import jsonl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xenintro.abi import Interface
    from xenintro.answered import Answered

#: Data of a response by the flag that it goes with: what it is called, and the keys in whose place it is.
_DATA = {
    "set_emul_read_data": ("read_data", "regs"),
    "set_emul_insn_data": ("insn_data", "regs"),
    "fast_singlestep": ("fast_singlestep.p2midx", "mem_access"),
}


class Difference(NamedTuple):
    """A request with two answers; ``number`` counts requests of the capture from 0."""

    number: int
    recorded: Answered
    computed: Answered

    def words(self) -> list[str]:
        """What differs, one member to a line, named as in JSON."""
        recorded, computed = self.recorded, self.computed
        lines = []
        for name, old, new in (
            ("answer", recorded.answer, computed.answer),
            ("would", recorded.would, computed.would),
        ):
            if old != new:
                lines.append(_line(name, old or "nothing", new or "nothing"))
        return lines + difference(recorded.response, computed.response, recorded.event.interface)


class Verification:
    """Compares a session's answers with those of the capture that its requests come from.

    Give the session's source `recorded`, and the session this object as what it records with.

    Args:
        would: compare what the policy would answer, too.

    Attributes:
        compared: requests with an answer in the capture.
        differing: those among them that got another answer, or would if the policy were enforced.
        unanswered: requests without an answer in the capture: there is nothing to compare.
        last: what differed in the last batch.
        first: the first difference.
    """

    def __init__(self, *, would: bool = True) -> None:
        self._would = would
        self.compared = self.differing = self.unanswered = 0
        self.first: Difference | None = None
        self.last: list[Difference] = []
        self._number = 0
        self._expected: deque[Answered] = deque()

    def recorded(self, capture: Iterable[Answered]) -> Iterator[Answered]:
        """The capture, noted on the way."""
        for answered in capture:
            self._expected.append(answered)
            yield answered

    def __call__(self, batch: list[Answered]) -> None:
        """Compare what was answered in one go."""
        self.last = []
        for computed in batch:
            recorded = self._expected.popleft()
            if not recorded.response:
                self.unanswered += 1
            else:
                self.compared += 1
                known = self._would and not recorded.recovered
                would = known and recorded.would != computed.would
                if would or recorded.response != computed.response:
                    self.last.append(Difference(self._number, recorded, computed))
            self._number += 1
        self.differing += len(self.last)
        if self.first is None and self.last:
            self.first = self.last[0]


def difference(recorded: bytes, computed: bytes, interface: Interface) -> list[str]:
    """What differs between two responses, one member to a line, named as in JSON; empty if nothing does."""
    return [_line(*member) for member in members_that_differ(recorded, computed, interface)]


def members_that_differ(one: bytes, other: bytes, interface: Interface) -> list[tuple[str, Any, Any]]:
    """The members of two responses that differ, named as in JSON, with both values."""
    if one == other:
        return []
    old, new = _members(one, interface), _members(other, interface)
    members = [
        (name, old.get(name, "nothing"), new.get(name, "nothing"))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if members:
        return members
    at = next(at for at, (this, that) in enumerate(zip(one, other, strict=True)) if this != that)
    return [(f"byte {at:#x}", f"{one[at]:#04x}", f"{other[at]:#04x}")]


def _line(name: str, old: Any, new: Any) -> str:
    return f"{name:<28} recorded {old}, now {new}"


def _members(raw: bytes, interface: Interface) -> dict[str, Any]:
    """A response as its members: those of a request, and the data that takes the place of some of them."""
    event = decode(raw, interface)
    record = jsonl.event_record(event)
    flags = record["flags"]
    members: dict[str, Any] = {"flags": " ".join(flags) or "none"}
    for flag, (name, place) in _DATA.items():
        if flag in flags:
            members[name] = _data(raw, name, interface)
            record.pop(place, None)
    if event.reason == "unknown":
        record["unknown"].pop("raw")
    for key, value in record.items():
        if isinstance(value, dict):
            members |= {f"{key}.{name}": inner for name, inner in value.items()}
        elif key != "flags":
            members[key] = value
    return members


def _data(raw: bytes, name: str, interface: Interface) -> str | int:
    if name == "read_data" and interface.emul_read is not None:
        offset, size = interface.emul_read
        length = int.from_bytes(raw[offset : offset + 4], "little")
        return raw[offset + 4 : offset + 4 + min(length, size - 4)].hex()
    if name == "insn_data" and interface.emul_insn is not None:
        offset, size = interface.emul_insn
        return raw[offset : offset + size].hex()
    view = interface.fast_singlestep_p2midx
    return 0 if view is None else int.from_bytes(raw[view.offset : view.offset + view.size], "little")
