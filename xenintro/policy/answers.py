"""What a rule answers: a word, or a table of actions with what each needs.

``answer = "deny"`` is short for ``answer = { deny = true }``. Actions that go together stand in one table:
``{ set-registers = { rax = 0 }, skip = true }``. They are called as the answers of `xenintro.response`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xenintro.abi import Flag
from xenintro.errors import PolicyError
from xenintro.response import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.events import Event
    from xenintro.guest import Guest

    #: A number, or how to compute it for an event.
    Value = int | Callable[[Event, Guest], int | None]
    Begin = Callable[[Event, Any], Response]
    Add = Callable[[Response, Event, Guest, Any], Response]

_U64 = (1 << 64) - 1
_NONE = Flag(0)


class Action(NamedTuple):
    """One thing that an answer does.

    Attributes:
        takes: what its value is: ``true``, ``bytes``, ``view``, ``registers``, ``length``, ``trap``.
        meaning: one line.
        begin: makes the answer, of the event and the value; an answer has at most one such action.
        add: adds to the answer that others have made.
    """

    takes: str
    meaning: str
    begin: Begin | None = None
    add: Add | None = None


def _set_registers(response: Response, event: Event, guest: Guest, values: Mapping[str, Value]) -> Response:
    return response.with_registers(
        {name: _number(name, value, event, guest) for name, value in values.items()}
    )


def _allow(event: Event, _: object) -> Response:
    return Response.allow(event)


def _plain(event: Event, _: object) -> Response:
    return Response.plain()


#: What an answer may do, in the order in which it is put together.
ACTIONS: Mapping[str, Action] = {
    "allow": Action("true", "it happens as if nobody watched", _allow),
    "plain": Action("true", "the vCPU goes on and nothing more: most instructions run again", _plain),
    "deny": Action("true", "the control register or MSR keeps its value", lambda e, _: Response.deny()),
    "emulate": Action("true", "Xen emulates the instruction", lambda e, _: Response.emulate()),
    "emulate-nowrite": Action(
        "true", "Xen emulates it, and it writes nothing", lambda e, _: Response.emulate(write=False)
    ),
    "emulate-read": Action(
        "bytes", "Xen emulates it, and it reads these bytes", lambda e, data: Response.emulate(read_data=data)
    ),
    "emulate-insn": Action(
        "bytes", "Xen emulates these instruction bytes", lambda e, data: Response.emulate(insn_data=data)
    ),
    "step-over": Action(
        "true", "the page is open for this one instruction", lambda e, _: Response.step_over()
    ),
    "single-step": Action(
        "true", "the next instruction is reported too", lambda e, _: Response.single_step()
    ),
    "fast-singlestep": Action(
        "view", "one step in this view, then this one", lambda e, view: Response.fast_singlestep(view)
    ),
    "set-registers": Action("registers", "registers change", add=_set_registers),
    "skip": Action(
        "length",
        "the instruction does nothing",
        add=lambda response, e, g, length: response.skipping(e, length),
    ),
    "inject": Action(
        "trap", "the guest gets this trap", add=lambda response, e, g, trap: response.injecting(**trap)
    ),
    "switch-view": Action(
        "view", "the vCPU runs in this altp2m view", add=lambda response, e, g, view: response.in_view(view)
    ),
    "next-interrupt": Action(
        "true",
        "what is delivered next is reported",
        add=lambda response, e, g, _: response.asking_next_interrupt(),
    ),
}

#: Actions whose response depends on the event.
_BY_EVENT = frozenset({"allow", "skip", "next-interrupt"})


class Answer:
    """An answer as a rule gives it.

    Attributes:
        name: its actions, joined by ``+``.
        constant: the response where it is always the same.

    Args:
        actions: each with its value; registers are a mapping of names to `Value`.
    """

    def __init__(self, actions: Mapping[str, Any]) -> None:
        values = {name: actions[name] for name in ACTIONS if name in actions}
        self.name = "+".join(values)
        varies = not _BY_EVENT.isdisjoint(values) or any(
            not isinstance(value, int) for value in values.get("set-registers", {}).values()
        )
        self._begin: Begin = _plain
        self._value: Any = None
        first = next((name for name in values if ACTIONS[name].begin is not None), None)
        if first is not None and (begin := ACTIONS[first].begin) is not None:
            self._begin, self._value = begin, values.pop(first)
        elif "skip" in values and "set-registers" not in values:
            self._begin, self._value = Response.skip, values.pop("skip")
        elif values.keys() == {"next-interrupt"}:
            self._begin = _allow
        self._added = [
            (add, value) for name, value in values.items() if (add := ACTIONS[name].add) is not None
        ]
        nothing: Any = None
        self.constant = None if varies else self.respond(nothing, nothing)

    def respond(self, event: Event, guest: Guest) -> Response:
        """The response to an event.

        Raises:
            PolicyError: what a register is computed of is absent.
            IllegalResponseError: nobody knows how long the skipped instruction is.
        """
        response = self._begin(event, self._value)
        for add, value in self._added:
            response = add(response, event, guest, value)
        return response if response.name == self.name else response.with_flags(_NONE, self.name)


def _number(register: str, value: Value, event: Event, guest: Guest) -> int:
    number = value if isinstance(value, int) else value(event, guest)
    if number is None:
        raise PolicyError(f"{register} cannot be set", why="what it is computed of is absent")
    return number & _U64
