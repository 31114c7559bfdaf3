"""The calls of the language."""

from __future__ import annotations

import ast
import fnmatch
from typing import TYPE_CHECKING, NamedTuple

from xenintro.errors import UsageError
from xenintro.policy.language.arithmetic import arithmetic
from xenintro.policy.language.lists import int_set
from xenintro.policy.language.scope import nearest
from xenintro.policy.language.tree import (
    Call,
    Comparison,
    Constant,
    Cpl,
    Has,
    Items,
    Node,
    Previous,
    Read,
    Seen,
)
from xenintro.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xenintro.policy.language.check import Checker

#: `seen` keeps this many times, and no longer window.
MAX_COUNT = 10_000
MAX_WINDOW = 86_400


class Function(NamedTuple):
    """A call.

    Attributes:
        usage: how it is written.
        meaning: one line.
        least, most: how many values it takes.
        check: gives its node.
    """

    usage: str
    meaning: str
    least: int
    most: int
    check: Callable[[Checker, ast.Call], Node]


def call(checker: Checker, node: ast.Call) -> Node:
    """A call, checked.

    Raises:
        ExpressionError: no such function, or not called like that.
    """
    assert isinstance(node.func, ast.Name)
    name = node.func.id
    function = FUNCTIONS.get(name)
    if function is None:
        close = nearest(name, FUNCTIONS)
        known = ", ".join(FUNCTIONS)
        raise checker.error(f"unknown function {name}", node.func, why=f"there are {known}", nearest=close)
    if not function.least <= len(node.args) <= function.most:
        raise checker.error(
            f"{name} is called with {len(node.args)} values", node, hint=f"write {function.usage}"
        )
    return function.check(checker, node)


def _bit(checker: Checker, node: ast.Call) -> Node:
    value = checker.number(node.args[0])
    bit = checker.value(node.args[1])
    if not (isinstance(bit, Constant) and bit.kind == "int" and 0 <= int(bit.value) < 64):
        raise checker.error("a bit is a constant from 0 to 63", node.args[1])
    return _called(
        checker, node, _masked(checker, node, value, _number(1 << int(bit.value)), "!=", _number(0))
    )


def _bits(checker: Checker, node: ast.Call) -> Node:
    value, mask = checker.number(node.args[0]), checker.number(node.args[1])
    if not isinstance(mask, Constant):
        raise checker.error("a mask is a constant", node.args[1])
    return _called(checker, node, _masked(checker, node, value, mask, "==", mask))


def _changed(checker: Checker, node: ast.Call) -> Node:
    old, new = _values(checker, node)
    return _difference(checker, node, _hidden(checker, "^", old, new, node))


def _turned_on(checker: Checker, node: ast.Call) -> Node:
    old, new = _values(checker, node)
    return _difference(
        checker, node, _hidden(checker, "&", new, _hidden(checker, "~", None, old, node), node)
    )


def _turned_off(checker: Checker, node: ast.Call) -> Node:
    old, new = _values(checker, node)
    return _difference(
        checker, node, _hidden(checker, "&", old, _hidden(checker, "~", None, new, node), node)
    )


def _cpl(checker: Checker, node: ast.Call) -> Node:
    return Cpl(span=checker.source.span(node), kind="int", bits=2, absent=True)


def _has(checker: Checker, node: ast.Call) -> Node:
    operand = checker.value(node.args[0])
    if not isinstance(operand, Read | Previous | Cpl):
        raise checker.error("only a field can be absent", node.args[0])
    return Has(span=checker.source.span(node), kind="bool", operand=operand)


def _prev(checker: Checker, node: ast.Call) -> Node:
    operand = checker.value(node.args[0])
    if not isinstance(operand, Read) or operand.kind == "names":
        raise checker.error("prev takes a field", node.args[0])
    return Previous(
        span=checker.source.span(node),
        kind=operand.kind,
        bits=operand.bits,
        unit=operand.unit,
        absent=True,
        of=operand,
    )


def _pages(checker: Checker, node: ast.Call) -> Node:
    values: list[int | str] = []
    for one in node.args:
        item = checker.value(one)
        if isinstance(item, Items):
            values += item.values
        elif isinstance(item, Constant) and not isinstance(item.value, bool):
            values.append(item.value)
        else:
            raise checker.error("pages are numbers, ranges or lists of them", one)
    items = Items(span=checker.source.span(node), kind="set", values=tuple(values), pages=True)
    int_set(checker, items, None)
    return items


def _symbol(checker: Checker, node: ast.Call) -> Node:
    name = _text(checker, node.args[0])
    addresses = _known_symbols(checker, node).get(name, ())
    if not addresses:
        close = nearest(name, [one for one in checker.scope.symbols if one[:3] == name[:3]])
        raise checker.error(f"no symbol {name}", node.args[0], nearest=close)
    if len(addresses) > 1:
        raise checker.error(
            f"{len(addresses)} symbols are called {name}", node.args[0], hint=f'write in symbols("{name}")'
        )
    (address,) = addresses
    span = checker.source.span(node)
    return Constant(span=span, kind="int", bits=address.bit_length(), value=address)


def _symbols(checker: Checker, node: ast.Call) -> Node:
    known, values = _known_symbols(checker, node), set[int]()
    for one in node.args:
        pattern = _text(checker, one)
        found = fnmatch.filter(known, pattern)
        if not found:
            raise checker.error(f"no symbol {pattern}", one)
        values.update(address for name in found for address in known[name])
    return Items(span=checker.source.span(node), kind="set", values=tuple(sorted(values)))


def _known_symbols(checker: Checker, node: ast.Call) -> Mapping[str, Sequence[int]]:
    if not checker.scope.symbols:
        hint = 'a file of rules names a list of them: symbols = "System.map"'
        raise checker.error("no symbols are known here", node, hint=hint)
    return checker.scope.symbols


def _text(checker: Checker, node: ast.expr) -> str:
    value = checker.value(node)
    if not (isinstance(value, Constant) and isinstance(value.value, str)):
        raise checker.error("the name of a symbol is a string", node)
    return value.value


def _seen(checker: Checker, node: ast.Call) -> Node:
    count = checker.value(node.args[0])
    if not (isinstance(count, Constant) and count.kind == "int" and 1 <= int(count.value) <= MAX_COUNT):
        raise checker.error(f"seen counts to a constant from 1 to {MAX_COUNT}", node.args[0])
    window = checker.value(node.args[1])
    seconds = -1.0
    if isinstance(window, Constant) and isinstance(window.value, str):
        try:
            seconds = parse_duration(window.value)
        except UsageError as error:
            raise checker.error(error.what, node.args[1], why=error.why, hint=error.hint) from None
    if not 0 < seconds <= MAX_WINDOW:
        raise checker.error(
            "the time of seen is a string, a day at most",
            node.args[1],
            hint=f"write {FUNCTIONS['seen'].usage}",
        )
    key = checker.value(node.args[2]) if len(node.args) > 2 else None
    if key is not None and (key.kind not in ("int", "string") or isinstance(key, Constant)):
        raise checker.error("the key of seen is a number or a string of the event", node.args[2])
    return Seen(
        span=checker.source.span(node),
        kind="bool",
        count=int(count.value),
        window_ns=round(seconds * 1e9),
        key=key,
    )


def _values(checker: Checker, node: ast.Call) -> tuple[Node, Node]:
    """What was in the register, and what is written to it."""
    old, new = (checker.read(name, None) for name in ("old_value", "new_value"))
    if old is None or new is None:
        raise checker.error(
            f"{checker.scope.reason} has no old and new value",
            node,
            why="write_ctrlreg and mov_to_msr have them",
        )
    return old, new


def _difference(checker: Checker, node: ast.Call, bits: Node) -> Node:
    if node.args:
        mask = checker.number(node.args[0])
        bits = _hidden(checker, "&", bits, mask, node)
    return _called(
        checker, node, Comparison(span=None, kind="bool", operands=(bits, _number(0)), ops=("!=",))
    )


def _masked(checker: Checker, node: ast.Call, value: Node, mask: Node, op: str, result: Node) -> Node:
    masked = _hidden(checker, "&", value, mask, node)
    return Comparison(span=None, kind="bool", operands=(masked, result), ops=(op,))


def _hidden(checker: Checker, op: str, left: Node | None, right: Node, node: ast.Call) -> Node:
    """A number that a call computes."""
    return arithmetic(checker, op, left, right, node, written=False)


def _called(checker: Checker, node: ast.Call, meaning: Node) -> Node:
    return Call(span=checker.source.span(node), kind="bool", meaning=meaning)


def _number(value: int) -> Constant:
    return Constant(span=None, kind="int", bits=value.bit_length(), value=value)


FUNCTIONS: Mapping[str, Function] = {
    "bit": Function("bit(value, n)", "bit n of a number is set", 2, 2, _bit),
    "bits": Function("bits(value, mask)", "all bits of the mask are set in a number", 2, 2, _bits),
    "changed": Function(
        "changed(mask)", "old_value and new_value differ (in bits of the mask)", 0, 1, _changed
    ),
    "turned_on": Function("turned_on(mask)", "a bit (of the mask) is set that was not", 0, 1, _turned_on),
    "turned_off": Function("turned_off(mask)", "a bit (of the mask) was set and is not", 0, 1, _turned_off),
    "cpl": Function("cpl()", "privilege level: 0 the kernel, 3 its programs", 0, 0, _cpl),
    "has": Function("has(field)", "the field is there", 1, 1, _has),
    "prev": Function("prev(field)", "what the field had the last time on this vCPU", 1, 1, _prev),
    "pages": Function('pages("0x1000-0x1fff", ...)', "gfns, for in", 1, 1000, _pages),
    "symbol": Function('symbol("name")', "the address of a symbol of the kernel", 1, 1, _symbol),
    "symbols": Function('symbols("name_*", ...)', "the addresses of several, for in", 1, 1000, _symbols),
    "seen": Function(
        'seen(n, "1s")',
        "it is reached the nth time within a second; a third value counts each value apart",
        2,
        3,
        _seen,
    ),
}
