"""The policy files of a configuration, loaded together or not at all."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xenintro.errors import PolicyError
from xenintro.policy import LIBRARY, Policy, may_deny
from xenintro.policy import load_all as load_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenintro.abi import Interface


class Loaded(NamedTuple):
    """Policies in the order they are asked, and the files they came from."""

    policies: tuple[Policy, ...] = ()
    specs: tuple[str, ...] = ()

    @property
    def denies(self) -> bool:
        """Whether one of them may deny a register write."""
        return may_deny(self.policies)


def load_all(patterns: Sequence[str], directory: Path, interface: Interface) -> Loaded:
    """Load every file.

    Args:
        patterns: as `xenintro.policy.load` takes them; ``*`` and ``?`` match files, and may match nothing.
        directory: where relative names start.
        interface: of the guest.

    Raises:
        PolicyError: a file that is not there, or not a policy, or one with an answer that Xen would not take.
    """
    specs = tuple(spec for pattern in patterns for spec in _expand(pattern, directory))
    return Loaded(tuple(load_together(specs, interface)), specs)


def _expand(pattern: str, directory: Path) -> list[str]:
    path, colon, name = pattern.partition(":")
    if pattern.startswith(LIBRARY) or (colon and "/" not in path and not path.endswith((".py", ".toml"))):
        return [pattern]  # it comes with xenintro, or is a module
    full = str(directory / path)
    if glob.has_magic(path):
        return [f"{found}{colon}{name}" for found in sorted(glob.glob(full))]  # noqa: PTH207 - any path
    if not Path(full).exists():
        raise PolicyError(
            f"policy.files: {full} does not exist", hint="a pattern such as rules.d/*.py may match nothing"
        )
    return [f"{full}{colon}{name}"]
