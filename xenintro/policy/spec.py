"""What ``--policy`` names, and who loads it."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from xenintro.errors import PolicyError
from xenintro.policy.python import load_python

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenintro.abi import Interface
    from xenintro.policy.chain import Policy

LIBRARY = "lib:"


def load(spec: str, interface: Interface | None = None) -> Policy:
    """A policy by what it is called on the command line.

    Args:
        spec: ``FILE.toml``, ``lib:NAME`` for a file of rules that comes with xenintro, ``FILE.py``,
            ``FILE.py:NAME`` or ``MODULE:NAME``.
        interface: of the guest, if it is known: rules are checked for that one alone.

    Raises:
        PolicyError: no such file or name, a mistake in it, or anybody could have written it.
    """
    path = rules_path(spec)
    if path is None:
        return load_python(spec)
    # Imported only now: the expression language is a third of what a verb without rules would load.
    from xenintro.policy.reader import load_rules

    return load_rules(path, interface)


def load_all(specs: Sequence[str], interface: Interface | None = None) -> list[Policy]:
    """Several policies; see `load`.

    Raises:
        PolicyError: see `load`, and two rules of the same name.
    """
    policies = [load(spec, interface) for spec in specs]
    owners: dict[str, str] = {}
    for policy, spec in zip(policies, specs, strict=True):
        for rule in policy.rules:
            if rule.name in owners:
                raise PolicyError(
                    f"{spec}: {rule.name} is a rule of {owners[rule.name]} too",
                    why="answers are counted and shown by the names of rules",
                )
            owners[rule.name] = spec
    return policies


def rules_path(spec: str) -> Path | None:
    """The file of rules that is meant; None for a policy in Python.

    Raises:
        PolicyError: no such file comes with xenintro.
    """
    if not spec.startswith(LIBRARY):
        return Path(spec) if spec.endswith(".toml") else None
    name = spec.removeprefix(LIBRARY)
    known = {path.stem: path for path in library()}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        raise PolicyError(
            f"no rules {name} come with xenintro",
            why=f"there are {', '.join(known)}",
            hint=f"did you mean lib:{close[0]}?" if close else "see: xenintro policy list",
        )
    return known[name]


def library() -> list[Path]:
    """The files of rules that come with xenintro."""
    folder = resources.files("xenintro.policy") / "library"
    return sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".toml"))
