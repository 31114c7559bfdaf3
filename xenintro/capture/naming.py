"""What the files of a recording are called, and when the next one begins."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xenintro.errors import UsageError
from xenintro.units import parse_duration, parse_size

if TYPE_CHECKING:
    from typing import Self

SUFFIX = ".pcapng"
#: A capture is compressed when it is closed, with what the end of its name says.
COMPRESSIONS = (".gz", ".zst")
#: The end of what is not whole yet.
PART = ".part"


class Rotation(NamedTuple):
    """When the next file begins: after so many bytes, or so many seconds."""

    size: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``100MB`` or ``10m``.

        Raises:
            UsageError: neither a size nor a duration, or none at all.
        """
        text = text.strip()
        rotation = cls()
        if text[-1:] in "bB":
            rotation = cls(size=parse_size(text))
        elif text[-1:].isalpha():
            rotation = cls(seconds=parse_duration(text))
        if not any(rotation):
            raise UsageError(
                f"not when to rotate: {text!r}",
                why="expected a size or a duration, with its unit",
                hint="for instance 100MB or 10m",
            )
        return rotation


class Naming(NamedTuple):
    """The names of a recording's files.

    Attributes:
        directory: of all of them.
        stem: what they begin with.
        suffix: what a file is called after its stem, and time, while it is written.
        compression: ``.gz``, ``.zst`` or nothing: what is appended when it is compressed.
        rotates: there is more than one, and each name has the time when the file was begun.
    """

    directory: Path
    stem: str
    suffix: str = SUFFIX
    compression: str = ""
    rotates: bool = False

    @classmethod
    def of(cls, path: Path, *, rotates: bool) -> Self:
        """As a path asks for."""
        compression = path.suffix if path.suffix in COMPRESSIONS else ""
        plain = path.with_suffix("") if compression else path
        return cls(path.parent, plain.stem, plain.suffix, compression, rotates)

    def next(self, now: datetime, last: Path | None = None) -> Path:
        """The path of a file that begins now; with rotation, one that there is not, and that sorts last."""
        if not self.rotates:
            return self.directory / f"{self.stem}{self.suffix}"
        began, number = stamp(now), 0
        if last is not None and (place := self._place(last.name)) is not None and place[0] >= began:
            began, number = place[0], place[1] + 1
        while True:
            numbered = f"_{number}" if number else ""
            path = self.directory / f"{self.stem}-{began}{numbered}{self.suffix}"
            if not path.exists() and not self.packed(path).exists():
                return path
            number += 1

    def packed(self, path: Path) -> Path:
        """What a file is called when it is compressed."""
        return path.with_name(path.name + self.compression)

    def existing(self) -> list[Path]:
        """Files with such names, oldest first; with rotation only."""
        placed = ((self._place(path.name), path) for path in self.directory.iterdir())
        return [path for _, path in sorted((place, path) for place, path in placed if place)]

    def parts(self) -> list[Path]:
        """What processes that compressed such files may have left."""
        return [
            path
            for path in self.directory.iterdir()
            if path.suffix == PART and self._place(path.name.rsplit(".", 2)[0]) is not None
        ]

    def _place(self, name: str) -> tuple[str, int] | None:
        """What files are sorted by; None for another's."""
        endings = "|".join(map(re.escape, COMPRESSIONS))
        match = re.fullmatch(
            rf"{re.escape(self.stem)}-(\d{{8}}-\d{{6}}Z)(?:_(\d+))?{re.escape(self.suffix)}(?:{endings})?",
            name,
        )
        return None if match is None else (match[1], int(match[2] or 0))


def part_of(path: Path, pid: int) -> Path:
    """What a compressed file is called while a process writes it: two of them do not meet."""
    return path.with_name(f"{path.name}.{pid}{PART}")


def stamp(now: datetime) -> str:
    """A time as it stands in names: UTC, so that names sort as the files were written."""
    return now.astimezone(UTC).strftime("%Y%m%d-%H%M%SZ")


def default_name(domain: str | None, domid: int, now: datetime | None) -> Path:
    """The name of a capture for which none was given: domain, and time if that is not added anyway."""
    stem = re.sub(r"[^\w.+-]", "_", domain or f"domain{domid}").lstrip("-.") or f"domain{domid}"
    return Path(f"{stem}-{stamp(now)}{SUFFIX}" if now else f"{stem}{SUFFIX}")
