"""Faults that a test injects: the Nth call of a name fails, hangs, or kills the client."""

from __future__ import annotations

import errno
from typing import Any

from xenintro.errors import UsageError

ACTIONS = ("fail", "hang", "kill-client")


class Fault:
    """One fault.

    Attributes:
        action: one of `ACTIONS`.
        errno: what a failing call sets.
        after: the call takes effect all the same.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        spec = dict(spec)
        self.call = str(spec.pop("call"))
        self.nth = int(spec.pop("nth", 1))
        code = spec.pop("errno", "EIO")
        self.errno = code if isinstance(code, int) else getattr(errno, code)
        self.action = str(spec.pop("action", "fail"))
        self.after = bool(spec.pop("after", False))
        if spec or self.action not in ACTIONS:
            raise UsageError(
                f"no such fault: {spec or self.action}",
                why=f"call, nth, errno, after, action ({', '.join(ACTIONS)})",
            )


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

    def meets(self, call: str) -> Fault | None:
        """Count a call."""
        if not self._faults:
            return None
        count = self._counts.get(call, 0) + 1
        self._counts[call] = count
        for fault in self._faults:
            if fault.call == call and fault.nth == count:
                return fault
        return None
