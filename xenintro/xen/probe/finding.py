"""One line of ``doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from xenintro.errors import XenintroError


class Finding(msgspec.Struct, frozen=True):
    """One line of ``doctor``.

    Attributes:
        id: stable name, for programs.
        section: ``host``, ``domain`` or ``process``.
        level: ``ok``, ``info``, ``warn`` or ``error``.
        what: what was looked at.
        detail: what was found.
        fix: what to do, empty if nothing.
    """

    id: str
    section: str
    level: str
    what: str
    detail: str
    fix: str = ""


def failed(id: str, section: str, what: str, error: XenintroError, level: str = "error") -> Finding:
    """What ``watch`` would say, as a finding."""
    detail = f"{error.what}: {error.why}" if error.why else error.what
    return Finding(id, section, level, what, detail, error.hint)
