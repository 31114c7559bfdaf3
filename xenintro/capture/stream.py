"""The bytes of a capture, whatever it is compressed with: told by its first bytes, in constant memory."""

from __future__ import annotations

import io
import os
import stat
import zlib
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from xenintro.errors import NotSupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: Frames that decompressors pass over; the seek table at the end of a file is one. The first byte varies.
_SKIPPABLE = b"\x2a\x4d\x18"

#: Bytes read at once, and given to a decompressor at once: a chunk of 1 KiB makes 32 MiB at most.
_CHUNK, _SMALL = 1 << 18, 1 << 10


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class Stream:
    """A file to read once, from its beginning to its end.

    Args:
        path: of the file, ``-`` for stdin.

    Attributes:
        size: bytes of the file as it lies there, None where unknown (a pipe).
        position: bytes of it that were read.
        damage: why the compressed data ended early or a part of it is missing; empty if nothing is.

    Raises:
        UsageError: it cannot be opened.
        NotSupportedError: compressed with what this Python has no module for.
    """

    def __init__(self, path: str) -> None:
        self._file: io.RawIOBase = _opened(path)
        status = os.fstat(self._file.fileno())
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self.position = 0
        self.damage = ""
        self._raw, self._at, self._ended = b"", 0, False
        self._need(4)
        self._new: Callable[[], _Decompressor] | None = None
        self._magic = b""
        if self._raw.startswith(GZIP):
            self._magic, self._new = GZIP, lambda: zlib.decompressobj(wbits=31)
        elif self._raw.startswith(ZSTD) or self._raw[1:4] == _SKIPPABLE:
            self._magic, self._new = ZSTD, _zstd()
        self._frame: _Decompressor | None = None

    @property
    def compression(self) -> str | None:
        """``gzip``, ``zstd``, or None."""
        return {GZIP: "gzip", ZSTD: "zstd"}.get(self._magic)

    def read(self) -> bytes:
        """The next bytes, uncompressed; none at the end."""
        while self._need(1):
            if self._new is None:
                return self._taken(len(self._raw))
            if data := self._decompressed(self._new):
                return data
        if self._frame is not None and not self.damage:
            self.damage = "the compressed data ends early"
        return b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _need(self, size: int) -> bool:
        """Have so many bytes ready, or what there is; whether there are so many."""
        while len(self._raw) - self._at < size and not self._ended:
            try:
                data = self._file.read(_CHUNK) or b""
            except OSError as error:
                self.damage = f"it cannot be read: {error.strerror}"
                data = b""
            self._ended = not data
            self.position += len(data)
            self._raw, self._at = self._raw[self._at :] + data, 0
        return len(self._raw) - self._at >= size

    def _taken(self, size: int) -> bytes:
        data = self._raw[self._at : self._at + size]
        self._at += len(data)
        return data

    def _decompressed(self, new: Callable[[], _Decompressor]) -> bytes:
        """What comes of the next chunk; a frame that is damaged is given up for the next one."""
        if self._frame is None:
            if self._skipped():
                return b""
            self._frame = new()
        start = self._at
        chunk = self._taken(_SMALL)
        try:
            data = self._frame.decompress(chunk)
        except Exception as error:  # zlib.error, and the ZstdError of either module
            self.damage = self.damage or f"the compressed data is damaged: {error}"
            self._frame = None
            self._at = start
            self._resynchronise()
            return b""
        if self._frame.eof:
            self._at -= len(self._frame.unused_data)
            self._frame = None
        return data

    def _skipped(self) -> bool:
        """Pass over a skippable frame, or the zeroes after the end of gzip; whether there was one."""
        if self._magic == ZSTD and self._need(8) and self._raw[self._at + 1 : self._at + 4] == _SKIPPABLE:
            left = 8 + int.from_bytes(self._raw[self._at + 4 : self._at + 8], "little")
            while left and self._need(1):
                left -= len(self._taken(left))
            return True
        if self._magic == GZIP and self._raw[self._at] == 0:
            self._at += 1
            return True
        return False

    def _resynchronise(self) -> None:
        """Go to where the next frame seems to begin, beyond the first byte of what is there."""
        self._at += 1
        while self._need(len(self._magic)):
            at = self._raw.find(self._magic, self._at)
            if at >= 0:
                self._at = at
                return
            self._at = len(self._raw) - len(self._magic) + 1
        self._at = len(self._raw)


def zstd_module() -> ModuleType | None:
    """``compression.zstd`` (Python 3.14), or ``zstandard``, or none."""
    for name in ("compression.zstd", "zstandard"):
        with suppress(ImportError):
            return import_module(name)
    return None


def _zstd() -> Callable[[], _Decompressor]:
    module = zstd_module()
    if module is None:
        raise NotSupportedError(
            "this capture is compressed with zstd",
            why="this Python has no module for that",
            hint="pip install 'xenintro[zstd]', or: zstd -d FILE",
        )
    if module.__name__ == "zstandard":
        return lambda: cast("_Decompressor", module.ZstdDecompressor().decompressobj())
    return cast("Callable[[], _Decompressor]", module.ZstdDecompressor)


def _opened(path: str) -> io.RawIOBase:
    try:
        if path == "-":
            return io.FileIO(0, closefd=False)
        return Path(path).open("rb", buffering=0)
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or str(error)) from error
