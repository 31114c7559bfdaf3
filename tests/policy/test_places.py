"""The line of every key of a TOML file."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from xenintro.policy.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = '''# rules
on_error = "allow"

[lists]
known = [ "a", # one "b"
  "x]", 3 ]
"quoted key" = 'it is'

[[rule]]
name = "first"
when = """
one
"""
answer = { set-registers = { rax = "0", rbx = 1 }, skip = true }
event.msr = "lstar"

[[rule.test]]
expect = """deny"""
[[rule.test]]
expect = "none"

[[rule]]
  [rule.deeper]
  name = "second"
[[rule.test]]
expect = "allow"
'''


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def test_every_key_has_its_line() -> None:
    places = Places(TEXT)
    lines = TEXT.splitlines()
    for path in paths(tomllib.loads(TEXT)):
        if path and isinstance(path[-1], str):
            assert path[-1] in lines[places.of(path).line - 1], path
    assert places.of(("lists", "known", 1)).line == 6
    assert places.of(("rule", 0, "test", 1, "expect")).line == 20
    assert places.of(("rule", 1)).line == 22
    assert places.of(("rule", 1, "deeper", "name")).line == 24
    assert places.of(("rule", 1, "test", 0, "expect")).line == 26


def test_where_a_text_begins() -> None:
    places = Places(TEXT)
    assert places.of(("on_error",)) == (2, 2, 13)
    assert places.of(("rule", 0, "when")) == (11, 12, None)
    assert places.of(("rule", 0, "test", 0, "expect")).column == 13


def test_what_is_not_there_is_where_it_should_be() -> None:
    places = Places(TEXT)
    assert places.of(("rule", 0, "test", 0, "slot")).line == 17
    assert places.of(("nowhere",)).line == 1


KEYS = st.text("ab", min_size=1, max_size=2)
VALUES = st.recursive(
    st.integers()
    | st.booleans()
    | st.sampled_from(['"]"', "'#'", '"a\\"}"', '"""x\ny"""', "1979-05-27", "1.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[ # list\n" + ",\n".join(map(written, value)) + "\n]"
    return str(value).lower() if isinstance(value, bool) else str(value)


@settings(deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_any_document(tables: list[dict[str, Any]]) -> None:
    lines: list[str] = []
    starts = {}
    for number, table in enumerate(tables):
        lines.append("[[t]]")
        for key, value in table.items():
            starts["t", number, key] = len(lines) + 1
            lines += f"{key} = {written(value)}".split("\n")
    text = "\n".join(lines)
    places = Places(text)
    for path in paths(tomllib.loads(text)):
        assert 1 <= places.of(path).line <= max(len(lines), 1)
    assert {path: places.of(path).line for path in starts} == starts
