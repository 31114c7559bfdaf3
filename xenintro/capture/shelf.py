"""The files of a recording, oldest first: which name is next, what is compressed, and what is removed."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from xenintro.capture.naming import Naming, part_of
from xenintro.capture.packing import Packing
from xenintro.capture.stream import zstd_module
from xenintro.errors import NotSupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenintro.capture.packer import Done


class Shelf:
    """Files that another process compresses and removes. Nothing here waits but `release`.

    Args:
        path: as the user names it; its ending asks for compression.
        rotates: every name has its time.
        keep: how many files there are at most.
        adopt: files of this name that are there belong to this recording.
        force: a file that is there may be replaced.

    Attributes:
        naming: of the files.
        files: those that are there, oldest first.

    Raises:
        UsageError: there is such a file.
        NotSupportedError: compression with zstd, and no module for that.
    """

    def __init__(self, path: Path, *, rotates: bool, keep: int | None, adopt: bool, force: bool) -> None:
        self.naming = Naming.of(path, rotates=rotates)
        if self.naming.compression == ".zst" and zstd_module() is None:
            raise NotSupportedError(
                f"cannot write {path}",
                why="this Python has no module for zstd",
                hint="pip install 'xenintro[zstd]', or name it .gz",
            )
        self._keep = keep
        self._packing: Packing | None = None
        self._removing: deque[Path] = deque()
        self.files: list[Path] = []
        if not (rotates or force):
            self._check_free()
        if self.naming.compression or keep is not None or adopt:
            self._packing = Packing()
        if adopt:
            self._adopt()

    def next(self) -> Path:
        """The name of the next file."""
        return self.naming.next(datetime.now(UTC), self.files[-1] if self.files else None)

    def begun(self, path: Path) -> None:
        """There is a file more; the oldest may have to go."""
        self.files.append(path)
        self._remove_oldest()

    def closed(self, path: Path) -> None:
        """A file is complete: it is compressed, if it is to be."""
        if self._packing is not None and self.naming.compression:
            self._packing.ask(path, self.naming.packed(path))

    def turn(self) -> None:
        """Hear what was done; to be called now and then."""
        if self._packing is not None:
            self._note(self._packing.turn())

    def release(self, patience: float | None, given_up: Callable[[], bool]) -> None:
        """See `xenintro.capture.recording.Recording.release`."""
        packing, self._packing = self._packing, None
        if packing is None:
            return
        try:
            self._note(packing.finish(patience, given_up))
        finally:
            packing.abandon()
            for path in self.files:
                part_of(self._packed(path), packing.pid).unlink(missing_ok=True)

    # Details

    def _remove_oldest(self) -> None:
        """Have the oldest removed; what waits too long for that, on a host that is busy, is removed here."""
        keep, packing = self._keep, self._packing
        if keep is None or packing is None:
            return
        while len(self.files) > keep:
            path = self.files.pop(0)
            for name in dict.fromkeys((self._packed(path), path)):
                self._removing.append(name.absolute())
                packing.ask(name)
        while len(self._removing) > 2 * keep:
            self._removing.popleft().unlink(missing_ok=True)

    def _packed(self, path: Path) -> Path:
        return path if path.suffix == self.naming.compression else self.naming.packed(path)

    def _note(self, done: list[Done]) -> None:
        """A file that was compressed has another name now; one that was removed is done with."""
        for one in done:
            with suppress(ValueError):
                self._removing.remove(Path(one.path))
            if one.to is None or one.error:
                continue
            for at, path in enumerate(self.files):
                if str(path.absolute()) == one.path:
                    self.files[at] = self.naming.packed(path)

    def _check_free(self) -> None:
        """Refuse before the guest is touched what would be refused in the end."""
        path = self.naming.next(datetime.now(UTC))
        for taken in (path, self.naming.packed(path)):
            if taken.exists():
                raise UsageError(
                    f"{taken} exists",
                    why="nothing is overwritten unasked",
                    hint="name another file, or: --force",
                )

    def _adopt(self) -> None:
        """Take over what earlier runs have left: uncompressed files, and parts of compressed ones."""
        for part in self.naming.parts():
            part.unlink(missing_ok=True)
        self.files = self.naming.existing()
        for path in self.files:
            if path.suffix == self.naming.suffix:
                self.closed(path)
