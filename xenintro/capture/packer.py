"""Compresses and removes captures in a process of its own, at the lowest priority: ``python -m`` this.

On stdin a JSON line asks, on stdout one answers; at the end of stdin it does what is left, and ends. A file
is removed only when its compressed copy is whole and on the disk.
"""

from __future__ import annotations

import os
import select
import signal
import zlib
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from xenintro.capture.blocks import LARGEST, SMALLEST
from xenintro.capture.naming import part_of
from xenintro.capture.stream import zstd_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Bytes that are compressed at once, about.
_FRAME = 1 << 20


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked: remove ``path``, or compress it into ``to``."""

    path: str
    to: str | None = None


class _Unwanted(Exception):  # noqa: N818 - no error: it was removed while it was compressed
    pass


class Done(msgspec.Struct):
    """What came of an order: the size of ``to``, or why it could not be."""

    path: str
    to: str | None = None
    size: int = 0
    error: str = ""


def main() -> None:
    """Do what stdin says, and say so on stdout."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when who asks does
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0")  # before who owns the ring
    Packer(0, 1).run()


class Packer:
    """Carries out orders. To remove comes first: disks fill while this process waits for its turn.

    Args:
        orders: descriptor to read from.
        answers: descriptor to write to.
    """

    def __init__(self, orders: int, answers: int) -> None:
        self._orders, self._answers = orders, answers
        self._poll = select.poll()
        self._poll.register(orders, select.POLLIN)
        self._read = b""
        self._ended = False
        self._queue: deque[Order] = deque()
        self._removed: set[str] = set()

    def run(self) -> None:
        """Until there are no more orders."""
        while self._queue or not self._ended:
            self._take(wait=not self._queue)
            if self._queue:
                order = self._queue.popleft()
                if order.path not in self._removed:
                    self._answer(carry_out(order, self._look))

    def _look(self, to: str) -> bool:
        """Look for orders while a file is compressed; whether it is still wanted."""
        self._take(wait=False)
        return to not in self._removed

    def _take(self, *, wait: bool) -> None:
        """Read what is there; remove at once, and put the rest into the queue."""
        while not self._ended and self._poll.poll(None if wait else 0):
            wait = False
            data = os.read(self._orders, 1 << 16)
            self._ended = not data
            *lines, self._read = (self._read + data).split(b"\n")
            for line in lines:
                order = msgspec.json.decode(line, type=Order)
                if order.to is None:
                    self._removed.add(order.path)
                    self._answer(carry_out(order))
                else:
                    self._queue.append(order)

    def _answer(self, done: Done) -> None:
        with suppress(BrokenPipeError):
            os.write(self._answers, msgspec.json.encode(done) + b"\n")


def carry_out(order: Order, wanted: Callable[[str], bool] = lambda _: True) -> Done:
    """Do one thing; what cannot be done is said, not raised.

    Args:
        order: what to do.
        wanted: asked now and then while a file is compressed.
    """
    path = Path(order.path)
    try:
        if order.to is None:
            path.unlink(missing_ok=True)
            return Done(order.path)
        return Done(order.path, order.to, pack(path, Path(order.to), wanted))
    except _Unwanted:
        return Done(order.path)
    except OSError as error:
        return Done(order.path, order.to, error=error.strerror or str(error))


def pack(path: Path, to: Path, wanted: Callable[[str], bool] = lambda _: True) -> int:
    """Compress a capture, with what the end of the new name says; returns the new size.

    Raises:
        OSError: it could not be done; the capture is as it was.
    """
    part = part_of(to, os.getpid())
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with path.open("rb") as plain, os.fdopen(fd, "wb") as out:
            (_write_zstd if to.suffix == ".zst" else _write_gzip)(_frames(plain, str(to), wanted), out)
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        part.rename(to)
        _sync_directory(to.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)
    return size


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _frames(plain: BinaryIO, to: str, wanted: Callable[[str], bool]) -> Iterator[bytes]:
    """The capture in pieces that end where a block ends: each can be read without the others."""
    kept = b""
    while data := plain.read(_FRAME):
        if not wanted(to):
            raise _Unwanted
        kept += data
        end = _last_end(kept)
        if end:
            yield kept[:end]
            kept = kept[end:]
    if kept:
        yield kept


def _last_end(data: bytes) -> int:
    """Where the last whole block ends; all of it where there is none to be seen."""
    at = 0
    while len(data) - at >= SMALLEST:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if size < SMALLEST or size > LARGEST:
            return len(data)
        if size > len(data) - at:
            break
        at += size
    return at


def _write_gzip(frames: Iterator[bytes], out: BinaryIO) -> None:
    """One member per frame: damage to one costs no more than that."""
    for frame in frames:
        compressor = zlib.compressobj(wbits=31)
        out.write(compressor.compress(frame) + compressor.flush())


def _write_zstd(frames: Iterator[bytes], out: BinaryIO) -> None:
    """All in one frame: Wireshark 4.0 loses its way where a second one begins."""
    module = zstd_module()
    if module is None:
        raise OSError("this Python has no zstd")
    if module.__name__ == "zstandard":
        compressor = module.ZstdCompressor(write_checksum=True).compressobj()
    else:
        compressor = module.ZstdCompressor(options={module.CompressionParameter.checksum_flag: 1})
    out.writelines(compressor.compress(frame) for frame in frames)
    out.write(compressor.flush())


if __name__ == "__main__":
    main()
