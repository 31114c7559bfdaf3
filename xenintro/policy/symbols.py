"""Names of a kernel's addresses, as nm, System.map and /proc/kallsyms list them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xenintro.errors import PolicyError
from xenintro.policy.trust import check_trusted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Bytes of such a file: more is none.
MAX_SIZE = 1 << 26

#: ``ffffffff81e00000 T entry_SYSCALL_64``; the type may be missing, the name of a module may follow.
_LINE = re.compile(r"^(?:0x)?(?P<address>[0-9a-fA-F]{1,16})\s+(?:[A-Za-z?]\s+)?(?P<name>\S+)(?:\s+\[\S+\])?$")


def read_symbols(path: Path) -> Mapping[str, tuple[int, ...]]:
    """The addresses of every name: a name that is static in several files has several.

    Raises:
        PolicyError: it cannot be read, is no such list, or anybody could have written it.
    """
    check_trusted(path)
    try:
        if path.stat().st_size > MAX_SIZE:
            raise PolicyError(f"{path} is too long", why=f"{MAX_SIZE} bytes at most")
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise PolicyError(f"cannot read the symbols {path}", why=error.strerror or str(error)) from error
    found: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.match(line)
        if match is None:
            raise PolicyError(
                f"{path}:{number}: no symbol",
                why=f"a line is an address and a name, this is {line[:40]!r}",
                hint="for instance: nm vmlinux > win10.map; or /proc/kallsyms of the guest",
            )
        name = match["name"]
        found[name] = (*found.get(name, ()), int(match["address"], 16))
    if not any(address for addresses in found.values() for address in addresses):
        raise PolicyError(
            f"{path} has no addresses",
            why="they are all zero" if found else "it is empty",
            hint="/proc/kallsyms shows them to root only",
        )
    return found
