"""What runs with this process's rights must not be everybody's to change."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from xenintro.errors import PolicyError

if TYPE_CHECKING:
    from pathlib import Path


def check_trusted(path: Path) -> None:
    """Pass a file that others cannot write, in a directory where they cannot replace it.

    Raises:
        PolicyError: they can, or there is no such file.
    """
    try:
        modes = [(one, one.stat().st_mode) for one in (path, path.absolute().parent)]
    except OSError as error:
        raise PolicyError(f"cannot read the policy {path}", why=error.strerror or str(error)) from error
    for one, mode in modes:
        # In a directory like /tmp (sticky) others cannot replace a file that is not theirs.
        if mode & stat.S_IWOTH and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
            raise PolicyError(
                f"the policy {path} is not trusted",
                why=f"everybody can write to {one}, and a policy runs with the rights of this process",
                hint=f"chmod o-w {one}",
            )
