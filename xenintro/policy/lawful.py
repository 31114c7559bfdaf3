"""What can be known of an answer before there is an event: whether Xen would take it at all.

The judge is `xenintro.legality`, asked with an event of each interface. What depends on the host is taken to
be there: the session asks again.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from xenintro.abi import ARCHITECTURES, CTRLREGS, INTERFACE_IDS, Interface, interface
from xenintro.codec import decode
from xenintro.errors import IllegalResponseError, PolicyError
from xenintro.guest import Guest
from xenintro.legality import Machine, check
from xenintro.policy.answers import ACTIONS, Answer
from xenintro.policy.language.expression import compile_expression
from xenintro.policy.requests import make_request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xenintro.events import Event
    from xenintro.policy.language.expression import Expression
    from xenintro.policy.language.scope import Named

#: All that a host may have.
EVERYTHING = Machine(altp2m=True, control_registers=True)

#: Fields whose values the samples of write_ctrlreg have all of.
_ENUMERATED = {"write_ctrlreg.register", "write_ctrlreg.index"}

_INTERRUPTS_ON = 0x202

_NOBODY = Guest(0, "", None, 1)


class Objection(NamedTuple):
    """Why an answer is none, and those that are."""

    why: str
    instead: str


def objection(
    answer: Answer,
    reason: str,
    when: str | None,
    names: Mapping[str, Named],
    interface: Interface | None = None,
) -> Objection | None:
    """Why no event of this kind can be answered so; None if one can.

    Args:
        answer: of a rule.
        reason: of its events.
        when: its condition, which may leave only some of them.
        names: constants and lists that it uses.
        interface: of the guest; None: all are tried.
    """
    samples = _possible(_samples(reason, interface), when, reason, names)
    why = _objection(answer, samples)
    if why is None or not samples:
        return None
    possible = [
        name
        for name, action in ACTIONS.items()
        if action.takes in ("true", "length")
        and _objection(Answer({name: True if action.takes == "true" else None}), samples) is None
    ]
    return Objection(why, ", ".join(possible))


def _objection(answer: Answer, samples: Sequence[Event]) -> str | None:
    """What is said of the first sample if all object."""
    why = None
    for event in samples:
        try:
            check(event, answer.respond(event, _NOBODY), EVERYTHING)
        except IllegalResponseError as error:
            why = why or error.why
        except PolicyError:  # what it is computed of may be there in another event
            return None
        else:
            return None
    return why


def _samples(reason: str, given: Interface | None) -> Sequence[Event]:
    return _samples_of(given, reason) if given is not None else _all_samples(reason)


@cache
def _all_samples(reason: str) -> Sequence[Event]:
    layouts = [interface(one, arch) for arch in ARCHITECTURES for one in reversed(INTERFACE_IDS)]
    return [event for layout in layouts for event in _samples_of(layout, reason)]


def _samples_of(layout: Interface, reason: str) -> list[Event]:
    """Events of one reason: one for each control register, else one."""
    if reason not in layout.reasons.values():
        return []
    registers = dict.fromkeys(layout.registers, 0x1000)
    registers |= {name: 0 for name, field in layout.registers.items() if field.size < 8}
    registers |= {"rflags": _INTERRUPTS_ON} if "rflags" in registers else {}
    values: list[dict[str, int]] = [{}]
    if reason == "write_ctrlreg":
        values = [{"index": index} for index in range(len(CTRLREGS))]
    elif "insn_length" in layout.payloads.get(reason, {}):
        values = [{"insn_length": 2}]
    return [decode(make_request(layout, reason, {**registers, **one}), layout) for one in values]


def _possible(
    samples: Sequence[Event], when: str | None, reason: str, names: Mapping[str, Named]
) -> Sequence[Event]:
    """The samples that a condition does not exclude by what they have all of."""
    conditions = _parts(when, reason, names) if when and reason == "write_ctrlreg" else []
    return [event for event in samples if all(one(event, _NOBODY) for one in conditions)]


def _parts(when: str, reason: str, names: Mapping[str, Named]) -> list[Expression[Event]]:
    """What must hold among other things, as far as it asks of `_ENUMERATED` alone."""
    text = re.sub(r"\s", " ", when).strip()
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:  # fine as an expression, but not to Python
        return []
    both = isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And)
    nodes = tree.values if both and isinstance(tree, ast.BoolOp) else [tree]
    texts = [ast.get_source_segment(text, node) or "" for node in nodes]
    try:
        parts = [compile_expression(text, reason, names=names) for text in texts]
    except PolicyError:
        return []
    return [part for part in parts if part.fields and _ENUMERATED.issuperset(part.fields)]
