"""What ``--policy`` names, and who loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenintro.policy.python import load_python

if TYPE_CHECKING:
    from xenintro.policy.chain import Policy


def load(spec: str) -> Policy:
    """A policy by what it is called on the command line.

    Args:
        spec: ``FILE.py``, ``FILE.py:NAME`` or ``MODULE:NAME``.

    Raises:
        PolicyError: no such file or name, a mistake in it, or anybody could have written it.
    """
    return load_python(spec)
