"""The golden ring pages, unpacked once."""

from __future__ import annotations

import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from xenintro.abi import Interface, interface

ARCHIVE = Path(__file__).parent.parent / "fixtures" / "golden.tar.xz"


class GoldenPage(NamedTuple):
    name: str
    interface: Interface
    page: bytes
    expected: dict[str, Any]
    acknowledged: bytes | None


@cache
def golden_pages() -> tuple[GoldenPage, ...]:
    with tarfile.open(ARCHIVE) as archive:
        files = {
            member.name.removeprefix("./"): handle.read()
            for member in archive
            if (handle := archive.extractfile(member)) is not None
        }
    pages = []
    for name in sorted(files):
        folder, _, leaf = name.partition("/")
        if not leaf.endswith(".json"):
            continue
        stem = name.removesuffix(".json")
        layout = interface(folder.removesuffix("-arm64"), "arm64" if folder.endswith("-arm64") else "x86_64")
        pages.append(
            GoldenPage(
                stem,
                layout,
                files[f"{stem}.bin"],
                json.loads(files[name]),
                files.get(f"{stem}.ack.bin"),
            )
        )
    return tuple(pages)
