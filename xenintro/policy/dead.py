"""Rules that are never asked, or never match."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.errors import PolicyError

if TYPE_CHECKING:
    from xenintro.policy.rules import RulePolicy, TomlRule


def dead_rules(policy: RulePolicy) -> list[PolicyError]:
    """A mistake for each rule that cannot have a say, in the order of the file."""
    found = []
    before: list[TomlRule] = []
    for rule in policy.rules:
        where = f"{policy.path}:{rule.line}: {rule.name}"
        if rule.when is not None and rule.when.constant is False:
            found.append(PolicyError(f"{where} never matches", why=f"{rule.when.text} is never true"))
        elif (first := next((one for one in before if _shadows(one, rule)), None)) is not None:
            why = f"{first.name} on line {first.line} answers {_what(first)} before it"
            found.append(PolicyError(f"{where} is never asked", why=why, hint="put the narrower rule first"))
        before.append(rule)
    return found


def _shadows(first: TomlRule, rule: TomlRule) -> bool:
    if first.on != rule.on:
        return False
    if first.when is None or first.when.constant:
        return True
    return rule.when is not None and first.when.text.split() == rule.when.text.split()


def _what(rule: TomlRule) -> str:
    return f"every {rule.on}" if rule.when is None or rule.when.constant else "the same events"
