"""Rings of files: names, rotation, compression by another process, and what is left when that dies."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.limits import file_size
from tests.capture.making import CR3, answered, info_of, write_capture
from tests.capture.wireshark import needs_tshark
from xenintro.capture import Capture
from xenintro.capture.naming import Naming, Rotation, default_name, part_of
from xenintro.capture.packer import Done, Order, Packer, carry_out
from xenintro.capture.recording import Recording
from xenintro.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 22, 12, 4, 11, tzinfo=UTC)


def until(true: Callable[[], bool]) -> None:
    deadline = monotonic() + 30
    while not true():
        assert monotonic() < deadline
        sleep(0.01)


def ids(paths: list[Path]) -> list[int]:
    """The times of what the files hold: the tests number requests with them."""
    found = []
    for path in paths:
        with Capture(path) as capture:
            found += [one.taken_ns - capture.info.started_ns + capture.info.monotonic_ns for one in capture]
            assert capture.damage is None
            assert capture.totals is not None
    return found


@pytest.mark.parametrize(
    ("text", "rotation"),
    [
        ("100MB", Rotation(size=100_000_000)),
        ("64KiB", Rotation(size=65536)),
        ("1.5GB", Rotation(size=1_500_000_000)),
        ("10m", Rotation(seconds=600)),
        ("1h", Rotation(seconds=3600)),
    ],
)
def test_when_to_rotate(text: str, rotation: Rotation) -> None:
    assert Rotation.parse(text) == rotation


@pytest.mark.parametrize("text", ["", "10", "MB", "0MB", "0s", "10 apples", "-1MB", "1QB"])
def test_what_is_no_rotation(text: str) -> None:
    with pytest.raises(UsageError):
        Rotation.parse(text)


@given(st.lists(st.sampled_from([-3600.0, 0.0, 0.4, 1.0, 60.0]), max_size=30))
def test_names_sort_as_the_files_were_begun(steps: list[float]) -> None:
    """Many in a second, and a clock that is set back."""
    naming = Naming.of(Path("/nowhere/win10.pcapng.gz"), rotates=True)
    now, paths = NOW, [naming.next(NOW)]
    for step in steps:
        now += timedelta(seconds=step)
        paths.append(naming.next(now, paths[-1]))
    places = [naming._place(path.name) for path in paths]
    assert all(before < after for before, after in pairwise(places))


def test_what_files_are_called() -> None:
    assert Naming.of(Path("a/x.pcapng.zst"), rotates=False).next(NOW) == Path("a/x.pcapng")
    assert Naming.of(Path("x.cap"), rotates=True).next(NOW) == Path("x-20261122-120411Z.cap")
    assert default_name("win10", 5, NOW) == Path("win10-20261122-120411Z.pcapng")
    assert default_name("../../etc/x", 5, NOW) == Path("_.._etc_x-20261122-120411Z.pcapng")
    assert default_name(None, 5, None) == Path("domain5.pcapng")


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_rotation_loses_nothing(tmp_path: Path, ending: str) -> None:
    recording = Recording(tmp_path / f"r.pcapng{ending}", rotation=Rotation(size=10_000))
    recording.begin(info_of())
    for at in range(100):
        recording.write([answered(taken_ns=at)])
    recording.close()
    recording.release()
    assert recording.requests == 100
    assert recording.files == sorted(tmp_path.iterdir(), key=recording.files.index)
    assert len(recording.files) > 8
    assert all(path.name.endswith(f".pcapng{ending}") for path in recording.files)
    assert ids(recording.files) == list(range(100))


def test_keep_removes_the_oldest(tmp_path: Path) -> None:
    (tmp_path / "r-notes.txt").write_text("mine")
    recording = Recording(tmp_path / "r.pcapng.gz", rotation=Rotation(size=10_000), keep=3)
    recording.begin(info_of())
    for at in range(100):
        recording.write([answered(taken_ns=at)])
        recording.turn()
    recording.close()
    recording.release()
    assert sorted(tmp_path.glob("r-2*")) == sorted(recording.files)
    assert len(recording.files) == 3
    assert ids(recording.files) == list(range(100 - len(ids(recording.files)), 100))
    assert (tmp_path / "r-notes.txt").exists()
    with pytest.raises(UsageError, match="--rotate"):
        Recording(tmp_path / "r.pcapng", keep=3)


def test_rotation_by_time_needs_no_events(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "r.pcapng", rotation=Rotation(seconds=0.01))
    recording.begin(info_of())
    recording.turn()
    assert len(recording.files) == 1, "an empty file is not rotated"
    recording.write([answered()])
    until(lambda: recording.turn() or len(recording.files) > 1)
    recording.close()
    recording.release()


def test_what_an_earlier_run_left_is_taken_over(tmp_path: Path) -> None:
    left = write_capture(tmp_path / "r-20260101-000000Z.pcapng", [[answered(taken_ns=1)]])
    (tmp_path / "r-20260101-000000Z.pcapng.gz.77.part").write_bytes(b"half")
    (tmp_path / "other.pcapng.gz.77.part").write_bytes(b"another's")
    recording = Recording(tmp_path / "r.pcapng.gz", rotation=Rotation(size=10_000), keep=9, adopt=True)
    recording.begin(info_of())
    recording.write([answered(taken_ns=2)])
    recording.close()
    recording.release()
    assert [path.suffix for path in recording.files] == [".gz", ".gz"]
    assert (tmp_path / "other.pcapng.gz.77.part").exists()
    assert sorted(tmp_path.glob("r-*")) == sorted(recording.files)
    assert not left.exists()
    assert ids(recording.files) == [1, 2]


def test_a_full_disk_ends_the_recording_once(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "r.pcapng.gz")
    recording.begin(info_of())
    recording.write([answered(taken_ns=1)])
    recording.turn()
    limit = recording.size + 100
    recording.write([answered(taken_ns=2)])
    with file_size(limit), pytest.raises(CaptureError):
        recording.turn()
    recording.write([answered(taken_ns=3)])
    recording.turn()
    recording.close()
    recording.release()
    assert recording.requests == 1
    with Capture(tmp_path / "r.pcapng.gz") as capture:
        assert len(list(capture)) == 1


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_full_disk_while_compressing_leaves_the_capture(tmp_path: Path, ending: str) -> None:
    path = write_capture(tmp_path / "c.pcapng", [[answered()]] * 20)
    before = path.read_bytes()
    to = path.with_name(path.name + ending)
    with file_size(50):
        done = carry_out(Order(str(path), str(to)))
    assert done.error == "File too large"
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before
    assert carry_out(Order(str(path), str(to))).error == ""
    assert list(tmp_path.iterdir()) == [to]
    assert to.stat().st_mode & 0o777 == 0o600


def test_a_packer_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Stopped in the middle of a file, killed: the capture is there, whole, under one name or the other."""
    path = write_capture(tmp_path / "big.pcapng", [[answered(taken_ns=at)] for at in range(3000)])
    to = tmp_path / "big.pcapng.gz"
    process = subprocess.Popen(
        [sys.executable, "-m", "xenintro.capture.packer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(b'{"path":"%s","to":"%s"}\n' % (str(path).encode(), str(to).encode()))
    process.stdin.flush()
    part = part_of(to, process.pid)
    until(lambda: part.exists() or to.exists())
    process.kill()
    process.communicate()
    assert len(ids([to if to.exists() else path])) == 3000


def test_what_is_to_be_removed_is_not_compressed_first(tmp_path: Path) -> None:
    """Also if that comes while it is being compressed, or after."""
    paths = [write_capture(tmp_path / f"{at}.pcapng", [[answered()]] * 5000) for at in range(3)]
    packed = [path.with_name(path.name + ".gz") for path in paths]
    orders = [Order(str(path), str(to)) for path, to in zip(paths, packed, strict=True)]
    orders += [Order(str(path)) for path in (*packed[:2], *paths[:2])]
    read, write = os.pipe()
    answers_read, answers_write = os.pipe()
    os.write(write, b"".join(msgspec.json.encode(order) + b"\n" for order in orders[:1]))
    packer = Packer(read, answers_write)
    looks = iter([lambda: os.write(write, b"".join(msgspec.json.encode(one) + b"\n" for one in orders[1:]))])
    look = packer._look

    def looking(to: str) -> bool:
        for send in looks:
            send()
            os.close(write)
        return look(to)

    packer._look = looking  # type: ignore[method-assign]
    packer.run()
    assert list(tmp_path.iterdir()) == [packed[2]]
    done = [msgspec.json.decode(line, type=Done) for line in os.read(answers_read, 1 << 16).splitlines()]
    assert [one.error for one in done if one.error] == []


def test_two_packers_of_one_file_do_no_harm(tmp_path: Path) -> None:
    """That of a service that was killed, and that of its successor: whoever is first, it is whole."""
    path = write_capture(tmp_path / "both.pcapng", [[answered(taken_ns=at)] for at in range(5000)])
    to = tmp_path / "both.pcapng.gz"
    order = b'{"path":"%s","to":"%s"}\n' % (str(path).encode(), str(to).encode())
    command = [sys.executable, "-m", "xenintro.capture.packer"]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for process in both:
        process.communicate(order)
    assert list(tmp_path.iterdir()) == [to]
    assert len(ids([to])) == 5000


def test_recording_goes_on_when_the_packer_is_dead(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "r.pcapng.gz", rotation=Rotation(size=5_000))
    recording.begin(info_of())
    assert recording._shelf._packing is not None
    recording._shelf._packing._process.kill()
    recording._shelf._packing._process.wait()
    for at in range(50):
        recording.write([answered(taken_ns=at)])
        recording.turn()
    recording.close()
    recording.release()
    assert ids(recording.files) == list(range(50))


def test_a_ring_of_files_stays_one_when_the_packer_is_dead(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "r.pcapng", rotation=Rotation(size=5_000), keep=3)
    recording.begin(info_of())
    assert recording._shelf._packing is not None
    recording._shelf._packing._process.kill()
    recording._shelf._packing._process.wait()
    for at in range(200):
        recording.write([answered(taken_ns=at)])
        assert len(list(tmp_path.iterdir())) <= 10
    recording.close()
    recording.release()
    assert ids(recording.files)[-1] == 199


def test_frames_stand_alone(tmp_path: Path) -> None:
    """A capture compressed with gzip, and damaged in one place, gives what is in the others."""
    path = write_capture(tmp_path / "f.pcapng", [[answered(taken_ns=at)] for at in range(4000)])
    to = tmp_path / "f.pcapng.gz"
    assert carry_out(Order(str(path), str(to))).error == ""
    data = bytearray(to.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"\x1f\x8b\x08\0"]
    assert len(starts) >= 3
    data[starts[1] + 20] ^= 0xFF
    to.write_bytes(data)
    with Capture(to) as capture:
        count = len(list(capture))
        assert capture.damage is not None
        assert capture.totals is not None
    assert 4000 - 1200 < count < 4000


@needs_tshark
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_tshark_reads_what_was_compressed(tmp_path: Path, ending: str) -> None:
    """Whole, and cut off in the middle; slots that do not compress, so that there are several buffers."""
    noise = random.Random(1).randbytes
    some = [answered(CR3[:100] + noise(len(CR3) - 100), taken_ns=at) for at in range(3000)]
    path = write_capture(tmp_path / "t.pcapng", [some])
    if ending:
        to = path.with_name(path.name + ending)
        assert carry_out(Order(str(path), str(to))).error == ""
        path = to
    for part, most, least in ((1.0, 6000, 6000), (0.5, 4000, 2000)):
        data = path.read_bytes()
        (tmp_path / f"cut{ending}").write_bytes(data[: int(len(data) * part)])
        said = subprocess.run(
            ["tshark", "-r", str(tmp_path / f"cut{ending}")], capture_output=True, check=False
        )
        assert least <= said.stdout.count(b"\n") <= most, said.stderr
