"""docs/expressions.md is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xenintro.policy.expression import compile_expression, compile_filter
from xenintro.policy.functions import FUNCTIONS
from xenintro.policy.scope import SYMBOLS
from xenintro.policy.state import MAX_TIMES, MAX_VCPUS
from xenintro.policy.syntax import MAX_DEPTH, MAX_LENGTH, MAX_NODES, MAX_STRING
from xenintro.policy.tree import MAX_BITS

TEXT = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text()
EXAMPLES = re.search(r"```\n(.*?)```", TEXT, flags=re.DOTALL)[1].splitlines()  # type: ignore[index]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: str) -> None:
    reason, text = example.split(maxsplit=1)
    names = {"known_roots": [0x102]}
    one = (
        compile_filter(text, names=names)
        if reason == "filter"
        else compile_expression(text, reason, names=names)
    )
    assert one.constant is None


def test_every_function_is_there_and_no_other() -> None:
    table = TEXT.partition("## Functions")[2].partition("## ")[0]
    named = set(re.findall(r"`(\w+)\(", "".join(line.partition(" |")[0] for line in table.splitlines())))
    assert named == set(FUNCTIONS)


def test_numbers_that_have_names() -> None:
    assert set(re.findall(r"\b(?:CR\d|EFER|RFLAGS)_\w+", TEXT)) <= set(SYMBOLS)


def test_limits() -> None:
    for number in (MAX_LENGTH, MAX_NODES, MAX_DEPTH, MAX_STRING, MAX_BITS, MAX_TIMES, MAX_VCPUS):
        assert re.search(rf"\b{number}\b", TEXT), number
