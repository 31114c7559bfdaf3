"""What a policy is told about the guest that it decides for."""

from __future__ import annotations

import msgspec


class Guest(msgspec.Struct, frozen=True):
    """The watched domain.

    Attributes:
        domid: its number while it is watched.
        uuid: as in its configuration.
        name: None where unknown.
        nr_vcpus: their ids are below this.
    """

    domid: int
    uuid: str
    name: str | None
    nr_vcpus: int
