"""What the guest does: a TOML file, one that comes with xenintro or one's own.

Keys: ``description``, ``pace``, ``rounds``, ``waits`` (see `Scenario`), and a table ``[[op]]`` for each
operation:

=========================================  ====================================================
``do``                                     operands (``times`` repeats any of them)
=========================================  ====================================================
``cr0`` ``cr3`` ``cr4`` ``xcr0``           ``values``: written one after the other
``wrmsr``                                  ``msr`` (name or number), ``values``
``cpuid``                                  ``leaves``: numbers, or ``[leaf, subleaf]``
``read`` ``write`` ``modify`` ``exec``     ``gfn``, ``pages`` (1), ``offset`` (0)
``walk`` ``exotic``                        the same: a page-table walk; an instruction that Xen
                                           cannot emulate
``in`` ``out``                             ``port`` (0xe9)
``lldt`` ``ltr``                           ``selector`` (0x28)
``interrupt``                              ``vector`` (0xef), delivered before the next one
``int3`` ``icebp`` ``hwdb``                a breakpoint; a #DB by ICEBP, by hardware
``guest_request``                          HVMOP_guest_request_vm_event
``sgdt`` ``sidt`` ``lgdt`` ``lidt``        descriptor tables
``sldt`` ``str``
``nop`` ``pause``                          nothing
=========================================  ====================================================
"""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from xenintro.errors import UsageError
from xenintro.sim.program import ENCODING, Program

_KEYS = {"description", "pace", "rounds", "waits", "op"}
_NOT_AN_OPERATION = {"jmp", "loop", "hlt"}


class Scenario(NamedTuple):
    """A guest's program.

    Attributes:
        name: of the scenario.
        description: one line.
        pace: instructions a second and vCPU while somebody watches; 0 for as fast as it can.
        rounds: how often the operations run before the guest sleeps; 0 for ever.
        waits: the guest starts only when a trap is armed.
        ops: what it does, in order: ``do``, ``times`` and the operation's operands.
    """

    name: str
    description: str
    pace: int
    rounds: int
    waits: bool
    ops: list[dict[str, Any]]


def names() -> list[str]:
    """The scenarios that come with xenintro."""
    folder = resources.files("xenintro.sim") / "scenarios"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load(name: str) -> Scenario:
    """A scenario by name, or from a file.

    Raises:
        UsageError: no such scenario, or the file makes no sense.
    """
    text = _read(name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"cannot read scenario {name}", why=str(error)) from error
    unknown = sorted(table.keys() - _KEYS)
    if unknown:
        raise UsageError(
            f"scenario {name}: unknown key {unknown[0]!r}", why=f"known: {', '.join(sorted(_KEYS))}"
        )
    ops = table.get("op", [])
    for op in ops:
        _check(name, op)
    _assemble(name, ops)
    return Scenario(
        Path(name).stem,
        str(table.get("description", "")),
        _number(name, table, "pace"),
        _number(name, table, "rounds"),
        bool(table.get("waits", False)),
        ops,
    )


def _number(name: str, table: dict[str, Any], key: str) -> int:
    value = table.get(key, 0)
    if not isinstance(value, int) or value < 0:
        raise UsageError(f"scenario {name}: {key} = {value!r}", why=f"{key} is a whole number, zero or more")
    return value


def _read(name: str) -> str:
    known = names()
    if name in known:
        return (resources.files("xenintro.sim") / "scenarios" / f"{name}.toml").read_text("utf-8")
    try:
        return Path(name).read_text("utf-8")
    except OSError as error:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean: --scenario {close[0]}" if close else ""
        raise UsageError(
            f"no scenario {name!r}",
            why=f"there are {', '.join(known)}; or name a file",
            hint=hint,
        ) from error


def _check(name: str, op: dict[str, Any]) -> None:
    kind = op.get("do")
    known = sorted(ENCODING.keys() - _NOT_AN_OPERATION)
    if kind not in known:
        close = difflib.get_close_matches(str(kind), known, 1)
        raise UsageError(
            f"scenario {name}: unknown operation {kind!r}",
            why=f"known: {', '.join(known)}",
            hint=f"did you mean {close[0]!r}?" if close else "",
        )


def _assemble(name: str, ops: list[dict[str, Any]]) -> None:
    """Lay the code out once, operation by operation, for its errors."""
    for number, op in enumerate(ops, 1):
        where = f"scenario {name}, operation {number} ({op['do']})"
        try:
            Program([op], 0)
        except KeyError as error:
            raise UsageError(f"{where} lacks {error}", hint="see docs/simulator.md") from error
        except (TypeError, ValueError, IndexError) as error:
            raise UsageError(f"{where}: an operand makes no sense", why=str(error)) from error
