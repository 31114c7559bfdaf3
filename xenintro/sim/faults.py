"""Faults that a test injects: the Nth call of a name fails, hangs, kills its caller, or meets a disaster."""

from __future__ import annotations

import difflib
import errno
from typing import Any

from xenintro.errors import UsageError
from xenintro.sim.errnos import ERRNOS, LOCAL

ACTIONS = ("fail", "hang", "kill-client", "order")


class Fault:
    """One fault.

    Attributes:
        call: the C function; ``xenforeignmemory_map`` stands for every call that maps guest memory.
        nth: which of its calls.
        action: one of `ACTIONS`.
        errno: what a failing call sets.
        order: what is done to the host (see `xenintro.sim.control`) before the call, which then goes on.
        after: the call takes effect first.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        spec = dict(spec)
        self.call = _known("call", str(spec.pop("call", "")), tuple(ERRNOS))
        self.nth = int(spec.pop("nth", 1))
        code = spec.pop("errno", "EIO")
        names = tuple(name for name in dir(errno) if name.startswith("E"))
        self.errno: int = code if isinstance(code, int) else getattr(errno, _known("errno", code, names))
        self.order: dict[str, Any] = spec.pop("order", {})
        action = str(spec.pop("action", "order" if self.order else "fail"))
        self.action = _known("action", action, ACTIONS)
        self.after = bool(spec.pop("after", False))
        if spec:
            _known("key", next(iter(spec)), ("call", "nth", "errno", "action", "after", "order"))


class Faults:
    """Counts calls and says which of them meets a fault."""

    def __init__(self, specs: list[dict[str, Any]]) -> None:
        self._faults = [Fault(spec) for spec in specs]
        self._counts: dict[str, int] = {}

    def add(self, spec: dict[str, Any]) -> None:
        """One more; its ``nth`` counts from now on."""
        fault = Fault(spec)
        fault.nth += self._counts.get(fault.call, 0)
        self._faults.append(fault)

    def clear(self) -> int:
        """Forget all; returns how many had not been met."""
        left = sum(fault.nth > self._counts.get(fault.call, 0) for fault in self._faults)
        self._faults.clear()
        return left

    @property
    def local(self) -> bool:
        """Whether one waits for a call that a client makes without asking."""
        return any(fault.call in LOCAL for fault in self._faults)

    def meets(self, call: str) -> Fault | None:
        """Count a call."""
        count = self._counts.get(call, 0) + 1
        self._counts[call] = count
        for fault in self._faults:
            if fault.call == call and fault.nth == count:
                return fault
        return None

    def counts(self) -> dict[str, int]:
        """How often each call was made so far."""
        return dict(self._counts)

    def count(self, call: str) -> int:
        """How often a call was made so far."""
        return self._counts.get(call, 0)


def parse_fault(text: str) -> dict[str, Any]:
    """``call=xc_monitor_cpuid,nth=2,errno=ENOMEM`` or ``call=...,after=1,order=destroy`` as a spec.

    Raises:
        UsageError: not of that form, or no such call, errno or action.
    """
    spec: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"not a fault: {text!r}", why=f"{part!r} is not KEY=VALUE", hint=_EXAMPLE)
        spec[key] = {"do": value} if key == "order" else value
    if "after" in spec:
        spec["after"] = spec["after"] not in ("0", "no", "false")
    try:
        Fault(spec)
    except ValueError as error:
        raise UsageError(f"not a fault: {text!r}", why=str(error), hint=_EXAMPLE) from error
    return spec


_EXAMPLE = "for instance: call=xc_monitor_cpuid,nth=2,errno=ENOMEM"


def _known(what: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        raise UsageError(
            f"no such fault: {what} {name!r}",
            why="it would never be met",
            hint=f"did you mean: {close[0]}" if close else _EXAMPLE,
        )
    return name
