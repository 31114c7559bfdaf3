"""Values as people read them: what is 64 bits wide in hexadecimal, what is absent as ``-``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.policy.language.tree import Arithmetic, Node, Previous, Read

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a value can be when an expression has been evaluated.
Value = int | str | bool | tuple[str, ...] | list[str] | None


def shown(value: Value, *, wide: bool) -> str:
    """A value as text.

    Args:
        value: of any kind; None is absent.
        wide: it is a number of 64 bits.
    """
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:#x}" if wide else str(value)
        case str():
            return value
    return _listed(value)


def _listed(words: Iterable[str]) -> str:
    return ",".join(words) or "-"


def is_wide(node: Node) -> bool:
    """Whether a part's numbers are shown in hexadecimal."""
    if isinstance(node, Previous):
        return is_wide(node.of)
    if isinstance(node, Read):
        return any(field.bits == 64 for _, field in node.fields)
    return isinstance(node, Arithmetic)
