"""The ``answer`` of a rule, read: the actions it names, and what each needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenintro.errors import ExpressionError
from xenintro.legality import SETTABLE
from xenintro.policy.answers import ACTIONS, Answer
from xenintro.policy.language.value import compile_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xenintro.policy.language.scope import Named
    from xenintro.policy.mistakes import Mistakes
    from xenintro.policy.places import Path as Keys

_INSN_BYTES = 16
_NOP = b"\x90"
_REGISTERS = [name for names in SETTABLE.values() for name in sorted(names)]
_TRAP: Mapping[str, int] = {
    "vector": 0xFF,
    "error_code": 0xFFFFFFFF,
    "cr2": (1 << 64) - 1,
    "type": 7,
    "insn_length": 15,
}


class _WrongError(Exception):
    """A value of an action that is none."""


class AnswerReader:
    """Reads the answer of one rule.

    Args:
        mistakes: where what is wrong is noted.
        reason: of the events that it answers.
        names: constants and lists that expressions may use.
    """

    def __init__(self, mistakes: Mistakes, reason: str, names: Mapping[str, Named]) -> None:
        self._mistakes = mistakes
        self._reason = reason
        self._names = names

    def read(self, keys: Keys, value: str | dict[str, Any]) -> Answer | None:
        """The answer, None if there is a mistake in it.

        Args:
            keys: where it stands.
            value: a word, or a table of actions.
        """
        before = len(self._mistakes)
        table = {value: True} if isinstance(value, str) else value
        actions: dict[str, Any] = {}
        for name, data in table.items():
            if name not in ACTIONS:
                what = f"unknown answer {name}" if isinstance(value, str) else "unknown answer"
                at = keys if isinstance(value, str) else (*keys, name)
                self._mistakes.add(at, what, word=name, known=ACTIONS)
            else:
                actions[name] = self._data((*keys, name), ACTIONS[name].takes, data)
        begins = [name for name in actions if ACTIONS[name].begin is not None]
        if len(begins) > 1:
            self._mistakes.add(keys, f"{begins[0]} and {begins[1]} do not go together")
        if not table:
            self._mistakes.add(keys, "no answer", hint='for instance answer = "deny"')
        return Answer(actions) if len(self._mistakes) == before else None

    def _data(self, keys: Keys, takes: str, data: Any) -> Any:
        if takes == "registers":
            return self._registers(keys, data)
        if takes == "trap":
            return self._trap(keys, data)
        read, example = _READERS[takes]
        try:
            return read(str(keys[-1]), data)
        except _WrongError as wrong:
            self._mistakes.add(keys, str(wrong), hint=f"for instance {keys[-1]} = {example}")
        return None

    def _registers(self, keys: Keys, data: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if not isinstance(data, dict) or not data:
            self._mistakes.add(
                keys, "registers are a table", hint='for instance set-registers = { rax = "0x0" }'
            )
            return values
        for name, value in data.items():
            at = (*keys, name)
            if name not in _REGISTERS:
                self._mistakes.add(
                    at, "Xen takes no such register from a response", word=name, known=_REGISTERS
                )
            elif isinstance(value, str):
                try:
                    values[name] = compile_value(value, self._reason, names=self._names)
                except ExpressionError as error:
                    self._mistakes.raised(at, error)
            elif _is_number(value, (1 << 64) - 1):
                values[name] = value
            else:
                self._mistakes.add(
                    at,
                    "not a number of 64 bits",
                    hint=f'a number or an expression: {name} = "{name} & ~0xff"',
                )
        return values

    def _trap(self, keys: Keys, data: Any) -> dict[str, int]:
        table = {"vector": data} if isinstance(data, int) else data
        if not isinstance(table, dict) or "vector" not in table:
            self._mistakes.add(
                keys, "a trap is a vector or a table with one", hint="for instance inject = { vector = 6 }"
            )
            return {}
        for name, value in table.items():
            at = (*keys, name)
            if name not in _TRAP:
                self._mistakes.add(at, "unknown key", word=name, known=_TRAP)
            elif not _is_number(value, _TRAP[name]):
                self._mistakes.add(at, f"not a number from 0 to {_TRAP[name]}")
        return table


def _yes(name: str, data: Any) -> bool:
    if data is not True:
        raise _WrongError(f"{name} takes no value but true")
    return True


def _bytes(name: str, data: Any) -> bytes:
    try:
        read = bytes.fromhex(data)
    except (TypeError, ValueError):
        raise _WrongError("not bytes in hexadecimal") from None
    if not read:
        raise _WrongError("no bytes")
    if name == "emulate-insn":
        if len(read) > _INSN_BYTES:
            raise _WrongError(f"more than {_INSN_BYTES} bytes of instructions")
        return read.ljust(_INSN_BYTES, _NOP)  # Xen may use all of them
    return read


def _view(name: str, data: Any) -> int:
    if not _is_number(data, 0xFFFF):
        raise _WrongError("a view is a number of 16 bits")
    return int(data)


def _length(name: str, data: Any) -> int | None:
    if data is True:
        return None
    if not _is_number(data, 15) or data == 0:
        raise _WrongError("an instruction has 1 to 15 bytes")
    return int(data)


def _is_number(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


_READERS: Mapping[str, tuple[Callable[[str, Any], Any], str]] = {
    "true": (_yes, "true"),
    "bytes": (_bytes, '"00 11"'),
    "view": (_view, "1"),
    "length": (_length, "true"),
}
