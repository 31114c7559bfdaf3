"""The file on the disk: whose it is, what a call writes, and what is left when the disk is full."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.capture.limits import file_size
from tests.capture.making import answered, info_of, write_capture
from xenintro.capture import Capture, CaptureInfo, CaptureWriter
from xenintro.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_of_what_is_held_as_much_is_written_as_there_is_room_for(tmp_path: Path) -> None:
    path = tmp_path / "full"
    writer = CaptureWriter(path, info_of())
    writer.hold([answered(taken_ns=1)])
    limit = writer.size + 100
    writer.hold([answered(taken_ns=2), answered(taken_ns=3)])
    with file_size(limit), pytest.raises(CaptureError):
        writer.flush()
    assert writer.requests == 1
    with Capture(path) as capture:
        assert [one.taken_ns for one in capture] == [1]
        assert capture.damage is None


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = write_capture(tmp_path / "mine.pcapng", [])
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text("precious")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="exists"):
        CaptureWriter(path, info_of())
    assert path.read_text() == "precious"
    with CaptureWriter(path, info_of(), force=True):
        pass
    assert path.stat().st_mode & 0o777 == 0o600
    with Capture(path) as capture:
        assert list(capture) == []


def test_only_a_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link", "."):
        with pytest.raises(UsageError, match="exists"):
            CaptureWriter(tmp_path / name, info_of(), force=True)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(CaptureError, match="cannot write"):
        CaptureWriter(tmp_path / "no" / "directory", info_of())


def test_one_write_for_what_was_answered_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CaptureWriter(tmp_path / "one", info_of()) as writer:
        calls: list[int] = []
        write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: calls.append(fd) or write(fd, data))
        writer.write([answered(taken_ns=at) for at in (1, 2, 3)])
        writer.write([])
        assert len(calls) == 1


def test_a_full_disk_leaves_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "full.pcapng"
    writer = CaptureWriter(path, info_of())
    batch = [answered(taken_ns=1_000), answered(taken_ns=2_000)]
    writer.write(batch)
    with file_size(writer.size + 1_000):
        with pytest.raises(CaptureError, match="cannot write") as failed:
            writer.write(batch)
        assert failed.value.why == "File too large"
        with pytest.raises(CaptureError):
            writer.write(batch)
        writer.close()
    with Capture(path) as capture:
        assert list(capture) == batch
        assert capture.damage is None
        assert capture.totals is None


def test_a_full_disk_at_the_header_leaves_nothing(tmp_path: Path) -> None:
    with file_size(10), pytest.raises(CaptureError):
        CaptureWriter(tmp_path / "none", info_of())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_disappears_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "gone.pcapng"
    writer = CaptureWriter(path, info_of())
    writer.write([answered()])
    path.unlink()
    with pytest.raises(CaptureError, match="removed while"):
        writer.write([answered(taken_ns=10_000_000_000)])
    writer = CaptureWriter(path, info_of())
    path.unlink()
    with pytest.raises(CaptureError, match="removed while"):
        writer.close()


def test_names_and_command_lines_of_any_length(tmp_path: Path) -> None:
    info = CaptureInfo(abi="vm_event-7", domain="ä" * 40_000, os="x" * 70_000, command=("a" * 100_000,))
    with pytest.raises(UsageError, match="too long"):
        CaptureWriter(tmp_path / "long", info)
    info = CaptureInfo(abi="vm_event-7", domain="ä" * 200, os="Linux", command=("a" * 100_000,))
    with CaptureWriter(tmp_path / "cut", info):
        pass
    with Capture(tmp_path / "cut") as capture:
        assert (capture.info.domain, capture.info.command) == ("ä" * 200, ())


@pytest.mark.parametrize("nameless", [True, False])
def test_a_file_is_there_with_its_header_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    opened = os.open

    def refusing(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not on this filesystem")
        return opened(path, flags, *mode)

    if not nameless:
        monkeypatch.setattr(os, "open", refusing)
    path = tmp_path / "one.pcapng"
    with file_size(10), pytest.raises(CaptureError):
        CaptureWriter(path, info_of())
    assert list(tmp_path.iterdir()) == []
    with CaptureWriter(path, info_of()) as writer:
        assert path.stat().st_size == writer.size > 0
        with pytest.raises(UsageError, match="exists"):
            CaptureWriter(path, info_of())
    assert path.stat().st_mode & 0o777 == 0o600
