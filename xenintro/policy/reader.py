"""A file of rules, read: everything that is wrong with it is found, and where.

A mistake names file, line and key, and the nearest right word. What can be known of an answer without its
event is checked here too: see `xenintro.policy.lawful`.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from xenintro.errors import ExpressionError, PolicyError, RulesError
from xenintro.events import EVENT_TYPES
from xenintro.policy.actions import AnswerReader
from xenintro.policy.answers import ACTIONS, Answer
from xenintro.policy.language.expression import compile_expression
from xenintro.policy.language.scope import Names
from xenintro.policy.language.template import compile_template
from xenintro.policy.lawful import objection
from xenintro.policy.mistakes import Mistakes
from xenintro.policy.rules import LEVELS, RulePolicy, TomlRule
from xenintro.policy.symbols import read_symbols
from xenintro.policy.trust import check_trusted
from xenintro.response import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import TypeVar

    from xenintro.abi import Interface
    from xenintro.policy.places import Path as Keys

    T = TypeVar("T")

#: Bytes of a file of rules: more is none.
MAX_SIZE = 1 << 20

#: What ``expect`` says of a test where no rule has a say.
NOBODY = "none"

#: Keys and what their values are.
_FILE: Mapping[str, type] = {"on_error": str, "lists": dict, "symbols": str, "rule": list}
_RULE: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "desc": str,
    "on": str,
    "when": str,
    "answer": (str, dict),
    "say": str,
    "level": str,
    "tags": list,
    "enabled": bool,
    "test": list,
}
_TEST: Mapping[str, type | tuple[type, ...]] = {
    "event": dict,
    "slot": str,
    "abi": str,
    "capture": str,
    "seq": int,
    "times": int,
    "every": str,
    "expect": str,
    "rule": str,
    "say": str,
    "registers": dict,
}
_REQUIRED = ("name", "on")
_ON_ERROR = ("allow", "deny")


def load_rules(path: Path, interface: Interface | None = None) -> RulePolicy:
    """The policy in a file of rules.

    Args:
        path: of the file.
        interface: of the guest that it is for, if it is known: answers are checked for that one alone.

    Raises:
        RulesError: mistakes in it.
        PolicyError: it cannot be read, or anybody could have written it.
    """
    check_trusted(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolicyError(f"cannot read the policy {path}", why=error.strerror or str(error)) from error
    return read_rules(data, path, interface)


def read_rules(data: bytes, path: Path, interface: Interface | None = None) -> RulePolicy:
    """The policy in the bytes of a file of rules; ``path`` is what mistakes call it.

    Raises:
        RulesError: mistakes in it.
    """
    reader = _Reader(_text(data, path), path, interface)
    rules = reader.rules()
    if reader.mistakes:
        raise RulesError(list(reader.mistakes))
    return RulePolicy(path, rules)


class _Reader:
    """Reads one file; what is wrong is noted, and the reading goes on."""

    def __init__(self, text: str, path: Path, interface: Interface | None) -> None:
        self.mistakes = Mistakes(path, text)
        self._table = tomllib.loads(text)
        self._interface = interface
        self._directory = path.parent
        self._names = Names({}, {})

    def rules(self) -> list[TomlRule]:
        """Every rule without a mistake."""
        table = self._checked((), self._table, _FILE)
        self._names = Names(self._lists(table.get("lists", {})), self._symbols(table.get("symbols")))
        on_error = table.get("on_error", "allow")
        if on_error not in _ON_ERROR:
            self.mistakes.add(("on_error",), f"unknown answer {on_error}", word=on_error, known=_ON_ERROR)
        tables = table.get("rule", [])
        if not tables and not self.mistakes:
            self.mistakes.add((), "no rules", hint="a rule begins with [[rule]]")
        found: list[TomlRule] = []
        lines: dict[str, int] = {}
        for number, one in enumerate(tables):
            keys = ("rule", number)
            if not isinstance(one, dict):
                self.mistakes.add(keys, "not a table", hint="a rule begins with [[rule]]")
                continue
            rule = self._rule(keys, one, on_error == "deny")
            name = one.get("name")
            if isinstance(name, str):
                if name in lines:
                    self.mistakes.add((*keys, "name"), f"{name} is the rule on line {lines[name]} too")
                lines.setdefault(name, self.mistakes.line((*keys, "name")))
            if rule is not None:
                found.append(rule)
        return found

    def _rule(self, keys: Keys, table: dict[str, Any], closed: bool) -> TomlRule | None:
        before = len(self.mistakes)
        table = self._checked(keys, table, _RULE)
        for missing in [key for key in _REQUIRED if not table.get(key)]:
            self.mistakes.add(keys, f"a rule without {missing}", hint=_EXAMPLES[missing])
        reason = table.get("on", "")
        if reason and reason not in EVENT_TYPES:
            self.mistakes.add((*keys, "on"), f"unknown event {reason}", word=reason, known=EVENT_TYPES)
        level = table.get("level")
        if level is not None and level not in LEVELS:
            self.mistakes.add((*keys, "level"), f"unknown level {level}", word=level, known=LEVELS)
        tags = table.get("tags", [])
        if not all(isinstance(tag, str) for tag in tags):
            self.mistakes.add((*keys, "tags"), "tags are a list of strings")
        tests = self._tests((*keys, "test"), table.get("test", []))
        if reason not in EVENT_TYPES:
            return None
        when = self._compiled((*keys, "when"), table.get("when"), reason, compile_expression)
        say = self._compiled((*keys, "say"), table.get("say"), reason, compile_template)
        answer = self._answer(keys, table, reason)
        on_error = self._on_error(keys, reason, closed)
        if len(self.mistakes) > before or answer is None:
            return None
        return TomlRule(
            name=table["name"],
            desc=table.get("desc", ""),
            on=reason,
            when=when,
            answer=answer,
            say=say,
            level=level,
            tags=tuple(tags),
            enabled=table.get("enabled", True),
            on_error=on_error,
            line=self.mistakes.line((*keys, "name")),
            tests=tests,
        )

    def _answer(self, keys: Keys, table: dict[str, Any], reason: str) -> Answer | None:
        at = (*keys, "answer")
        answer = AnswerReader(self.mistakes, reason, self._names).read(at, table.get("answer", "allow"))
        if answer is not None:
            wrong = objection(answer, reason, table.get("when"), self._names, self._interface)
            if wrong is not None:
                what = f"{answer.name} is no answer to {reason}"
                self.mistakes.add(at, what, why=wrong.why, hint=f"answers to it are {wrong.instead}")
        return answer

    def _on_error(self, keys: Keys, reason: str, closed: bool) -> Response | None:
        """A file that denies what it cannot decide about does so where that can be."""
        if not closed or objection(Answer({"deny": True}), reason, None, {}, self._interface) is not None:
            return None
        return Response.deny()

    def _compiled(self, keys: Keys, text: str | None, reason: str, compiler: Callable[..., T]) -> T | None:
        if text is None:
            return None
        try:
            return compiler(text, reason, names=self._names)
        except ExpressionError as error:
            self.mistakes.raised(keys, error)
            return None

    def _lists(self, table: dict[str, Any]) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for name, value in table.items():
            items = value if isinstance(value, list) else [value]
            if all(isinstance(item, int | str) for item in items):
                names[name] = tuple(value) if isinstance(value, list) else value
            else:
                self.mistakes.add(("lists", name), "a list has numbers and strings")
        return names

    def _symbols(self, file: str | None) -> Mapping[str, tuple[int, ...]]:
        if file is None:
            return {}
        try:
            return read_symbols(self._directory / file)
        except PolicyError as error:
            self.mistakes.add(("symbols",), error.what, why=error.why or "", hint=error.hint or "")
            return {}

    def _tests(self, keys: Keys, tables: list[Any]) -> list[dict[str, Any]]:
        tests = []
        for number, table in enumerate(tables):
            at = (*keys, number)
            if not isinstance(table, dict):
                self.mistakes.add(at, "not a table", hint="a test begins with [[rule.test]]")
                continue
            checked = self._checked(at, table, _TEST)
            sources = [name for name in _SOURCES if name in checked]
            if len(sources) != 1:
                self.mistakes.add(at, f"a test has one of {', '.join(_SOURCES)}")
            if "capture" in checked and "seq" not in checked:
                self.mistakes.add(at, "a capture needs seq", hint="which of its requests: seq = 0")
            self._expect((*at, "expect"), checked.get("expect"))
            tests.append({**checked, "line": self.mistakes.line(at)})
        return tests

    def _expect(self, keys: Keys, answer: str | None) -> None:
        known = (*ACTIONS, NOBODY)
        if answer is None:
            self.mistakes.add(keys, "missing", hint='an answer, or "none": expect = "deny"')
            return
        for word in answer.split("+"):
            if word not in known:
                self.mistakes.add(keys, f"unknown answer {word}", word=word, known=known)

    def _checked(self, keys: Keys, table: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that are known, with values of their type."""
        checked = {}
        for key, value in table.items():
            at = (*keys, key)
            if key not in known:
                self.mistakes.add(at, "unknown key", word=key, known=known)
            elif not isinstance(value, known[key]) or (isinstance(value, bool) and known[key] is not bool):
                self.mistakes.add(at, f"not {_TYPES[known[key]]}", hint=_EXAMPLES.get(key, ""))
            else:
                checked[key] = value
        return checked


_TYPES: Mapping[Any, str] = {
    str: "a string",
    bool: "true or false",
    int: "a number",
    list: "a list",
    dict: "a table",
    (str, dict): "a string or a table",
}
_EXAMPLES: Mapping[str, str] = {
    "name": 'for instance name = "freeze-lstar"',
    "on": 'which events: on = "mov_to_msr"',
    "tags": 'for instance tags = ["T1014"]',
    "answer": 'for instance answer = "deny"',
    "rule": "a rule begins with [[rule]]",
    "lists": "lists stand below [lists]",
    "symbols": 'a file of addresses and names: symbols = "System.map"',
    "event": 'for instance event = { msr = "lstar" }',
}
_SOURCES = ("event", "slot", "capture")


def _text(data: bytes, path: Path) -> str:
    if len(data) > MAX_SIZE:
        raise PolicyError(f"{path} is too long", why=f"{len(data)} bytes, {MAX_SIZE} at most")
    try:
        text = data.decode().replace("\r\n", "\n")
        tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path} is not TOML", why=f"not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        why, _, place = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", place)
        at = f":{line[1]}" if line else f":{text.count(chr(10)) + 1}"
        raise PolicyError(f"{path}{at}: not TOML", why=why[:1].lower() + why[1:]) from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise PolicyError(f"{path} is not TOML", why=str(error)) from error
    return text
