"""Fuzz target: any file is one of rules that decide about events, or refused with a place for each mistake.

make fuzz FUZZ_SECONDS=60
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from xenintro.abi import interface
    from xenintro.codec import decode, encode
    from xenintro.errors import IllegalResponseError, PolicyError, RuleError, RulesError
    from xenintro.guest import Guest
    from xenintro.legality import check
    from xenintro.policy.chain import chain
    from xenintro.policy.dead import dead_rules
    from xenintro.policy.lawful import EVERYTHING
    from xenintro.policy.reader import read_rules
    from xenintro.policy.requests import make_request
    from xenintro.policy.spec import library
    from xenintro.policy.testing import run_tests

FILE = Path("/nowhere/rules.toml")
LAYOUT = interface("vm_event-7")
EVENTS = [decode(make_request(LAYOUT, reason, {}), LAYOUT) for reason in LAYOUT.reasons.values()]
GUEST = Guest(1, "-", "fuzzed", 1)


def test_one_input(data: bytes) -> None:
    """The input is the file."""
    try:
        policy = read_rules(data, FILE)
    except RulesError as error:
        assert all(mistake.lines()[0].startswith(f"error: {FILE}:") for mistake in error.mistakes)
        return
    except PolicyError as error:
        assert str(FILE) in error.lines()[0]
        return
    dead_rules(policy)
    list(run_tests(policy, lambda path, seq: ()))
    policy.set_up(GUEST)
    decide = chain([policy], GUEST)
    assert decide is not None
    for event in EVENTS:
        try:
            verdict = decide(event)
            if verdict is not None:
                verdict.rule.message(event)
                if verdict.response is not None:
                    check(event, verdict.response, EVERYTHING)
                    encode(event, verdict.response)
        except (RuleError, IllegalResponseError):
            pass


def main() -> None:
    """Run libFuzzer with the files that come with xenintro as corpus."""
    with tempfile.TemporaryDirectory() as folder:
        for path in library():
            shutil.copy(path, folder)
        atheris.Setup([sys.argv[0], folder, "-max_len=4096", *sys.argv[1:]], test_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
