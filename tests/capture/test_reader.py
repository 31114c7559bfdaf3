"""What was written is what is read."""

from __future__ import annotations

import gzip
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from tests.capture.making import CR3, RULE, V7, answered, batches, info_of, write_capture
from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, Interface, interface
from xenintro.capture import Capture, CapturedPage, CaptureWriter, blocks
from xenintro.capture.blocks import EPB_FLAGS, EPB_PACKETID, EPB_QUEUE, SECTION_HEADER
from xenintro.errors import DamagedInputError, UsageError
from xenintro.guest import GuestRead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenintro.answered import Answered


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches())
def test_requests_responses_and_remarks_come_back(
    tmp_path: Path, made: tuple[Interface, list[list[Answered]]]
) -> None:
    layout, written = made
    with Capture(write_capture(tmp_path / "any.pcapng", written, layout)) as capture:
        assert list(capture) == [one for batch in written for one in batch]
        assert capture.damage is None
        assert capture.interface is layout
        assert capture.info == info_of(layout)
        assert capture.totals is not None
        assert capture.totals.requests == sum(map(len, written))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("abi", INTERFACE_IDS)
def test_every_interface(tmp_path: Path, abi: str, arch: str) -> None:
    layout = interface(abi, arch)
    one = answered(bytes(layout.slot_size), layout)
    with Capture(write_capture(tmp_path / "one.pcapng", [[one]], layout)) as capture:
        assert list(capture) == [one]
        assert (capture.interface.id, capture.interface.arch) == (abi, arch)


def test_times_are_those_of_the_day(tmp_path: Path) -> None:
    from msgspec.structs import replace

    info = replace(info_of(), started_ns=1_790_000_000_000_000_000, monotonic_ns=5_000)
    with CaptureWriter(tmp_path / "t.pcapng", info) as writer:
        writer.write([answered(taken_ns=6_000, pause_ns=700)])
    with Capture(tmp_path / "t.pcapng") as capture:
        (one,) = capture
    assert one.taken_ns == 1_790_000_000_000_001_000
    assert one.pause_ns == 700


def test_pages_and_memory(tmp_path: Path) -> None:
    page = bytes(range(256)) * 16
    reads = {1: [GuestRead(1_100, 0x1000, b"abc"), GuestRead(1_100, 0x2000, bytes(4096))]}
    path = tmp_path / "all.pcapng"
    with CaptureWriter(path, info_of()) as writer:
        writer.page(page, 900)
        writer.write([answered(), answered(taken_ns=1_100)], reads)
        writer.write([answered(taken_ns=9_000)])
    with Capture(path) as capture:
        assert list(capture.pages) == [CapturedPage(900, page)]
    with Capture(path) as capture:
        seen = [(one.taken_ns, capture.reads) for one in capture]
    assert seen == [(1_000, ()), (1_100, tuple(reads[1])), (9_000, ())]


def test_a_request_without_a_response_is_unanswered(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "u.pcapng", [[answered()], [answered()._replace(response=b"")]])
    with Capture(path) as capture:
        first, second = capture
    assert first == answered()
    assert (second.answer, second.response, second.pause_ns) == ("unanswered", b"", None)


def test_compressed_as_the_first_bytes_say(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    plain = write_capture(tmp_path / "plain", [[answered()]] * 50).read_bytes()
    cut = plain[:3000], plain[3000:]
    compress = zstandard.ZstdCompressor().compress
    skipped = b"\x5e\x2a\x4d\x18\x04\0\0\0seek"
    variants = {
        "one.gz": gzip.compress(plain),
        "members.gz": b"".join(map(gzip.compress, cut)) + bytes(512),
        "one.zst": compress(plain),
        "frames.zst": b"".join(map(compress, cut)) + skipped,
    }
    for data in variants.values():
        (tmp_path / "unnamed").write_bytes(data)
        with Capture(tmp_path / "unnamed") as capture:
            assert len(list(capture)) == 50
            assert capture.damage is None
            assert capture.position == capture.size == len(data)


def test_stdin(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "in.pcapng", [[answered()]] * 3)
    code = "from xenintro.capture import Capture; c = Capture('-'); print(len([*c]), c.damage, c.totals[2])"
    with path.open("rb") as stdin:
        said = subprocess.run([sys.executable, "-c", code], stdin=stdin, capture_output=True, check=True)
    assert said.stdout == b"3 None 3\n"


def test_the_other_byte_order(tmp_path: Path) -> None:
    """A capture of a big-endian writer: its blocks are turned round, slots are what Xen wrote."""
    path = write_capture(tmp_path / "little", [[answered(rule=RULE)], [answered(taken_ns=7_000)]])
    (tmp_path / "big").write_bytes(turned_round(path.read_bytes()))
    with Capture(path) as little, Capture(tmp_path / "big") as big:
        assert list(big) == list(little)
        assert (big.damage, big.totals, big.info) == (None, little.totals, little.info)


def turned_round(data: bytes) -> bytes:
    """The same blocks in the other byte order."""
    heads = {SECTION_HEADER: "IHHQ", 1: "HHI", 5: "III", 6: "IIIII"}
    numbers = {EPB_FLAGS: "I", EPB_PACKETID: "Q", EPB_QUEUE: "I"}
    out, at = b"", 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        head = struct.unpack_from("<" + heads[kind], data, at + 8)
        fixed = struct.calcsize("<" + heads[kind])
        body = struct.pack(">" + heads[kind], *head)
        options = 8 + fixed
        if kind == 6:
            body += data[at + 8 + fixed :][: head[3] + -head[3] % 4]
            options += head[3] + -head[3] % 4
        body += b"".join(_options(data[at + options : at + size - 4], kind, numbers))
        out += struct.pack(">II", kind, size) + body + struct.pack(">I", size)
        at += size
    return out


def _options(data: bytes, kind: int, numbers: dict[int, str]) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        code, size = struct.unpack_from("<HH", data, at)
        value = data[at + 4 : at + 4 + size]
        if kind == 6 and code in numbers:
            value = struct.pack(">" + numbers[code], *struct.unpack("<" + numbers[code], value))
        elif kind == 5 and code in (2, 3):
            value = struct.pack(">II", *struct.unpack("<II", value))
        elif kind == 5 and code in (4, 5):
            value = struct.pack(">Q", *struct.unpack("<Q", value))
        yield struct.pack(">HH", code, size) + value + bytes(-size % 4)
        at += 4 + size + -size % 4


def test_blocks_options_and_interfaces_of_others_are_passed_over(tmp_path: Path) -> None:
    data = write_capture(tmp_path / "mine", [[answered()], [answered(taken_ns=2_000)]]).read_bytes()
    at = data.index(b"\x06\0\0\0")
    ethernet = blocks.interface_description(1, [(2, b"eth0"), (9, b"\x06")])
    packet = blocks.Packets(3, 60).block(bytes(60), 0, 0, 0, 0, "not ours")
    strange = blocks.block(0x80000ABC, b"custom!!") + blocks.block(3, bytes(8))
    (tmp_path / "mixed").write_bytes(data[:at] + strange + ethernet + packet + data[at:] + strange)
    with Capture(tmp_path / "mixed") as capture:
        assert list(capture) == [answered(), answered(taken_ns=2_000)]
        assert capture.damage is None


@pytest.mark.parametrize(
    ("resolution", "ticks"),
    [(b"\x06", 1_700_000_000_000_123), (b"\x03", 1_700_000_000_000), (b"\x8a", 17 << 10)],
)
def test_other_resolutions_of_time(tmp_path: Path, resolution: bytes, ticks: int) -> None:
    """editcap and other writers keep microseconds."""
    header = blocks.section_header([]) + blocks.interface_description(
        147, [(2, b"xen:tiny:monitor"), (3, b"vm_event-7 x86_64 4.17"), (9, resolution)]
    )
    packet = blocks.Packets(0, len(CR3)).block(CR3, ticks, blocks.INBOUND, 0, 0)
    (tmp_path / "t").write_bytes(header + packet)
    with Capture(tmp_path / "t") as capture:
        (one,) = capture
        assert (capture.info.abi, capture.info.domain, capture.info.release) == ("vm_event-7", "tiny", "4.17")
    assert one.taken_ns == ticks * 10**9 // {6: 10**6, 3: 10**3, 0x8A: 1 << 10}[resolution[0]]


def test_requests_whose_responses_never_come_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "lost"
    lost = answered()._replace(response=b"")
    write_capture(path, [[lost] * 1000] * 20)
    tracemalloc.start()
    with Capture(path) as capture:
        assert sum(one.answer == "unanswered" for one in capture) == 20_000
        assert not capture._by_id
    assert tracemalloc.get_traced_memory()[1] < 16_000_000
    tracemalloc.stop()


def test_a_bomb_is_read_piece_by_piece(tmp_path: Path) -> None:
    """Many zeroes in few bytes: no capture, and no memory."""
    compressor = zlib.compressobj(wbits=31)
    head = write_capture(tmp_path / "head", [[answered()]]).read_bytes()
    zeroes = bytes(1 << 20)
    bomb = compressor.compress(head) + b"".join(compressor.compress(zeroes) for _ in range(64))
    (tmp_path / "bomb").write_bytes(bomb + compressor.flush())
    tracemalloc.start()
    with Capture(tmp_path / "bomb") as capture:
        assert len(list(capture)) == 1
        assert capture.damage is not None
    assert tracemalloc.get_traced_memory()[1] < 32_000_000
    tracemalloc.stop()


def test_captures_after_each_other_are_one(tmp_path: Path) -> None:
    older = interface("vm_event-3")
    first = write_capture(tmp_path / "1", [[answered(rule=RULE)]]).read_bytes()
    second = write_capture(tmp_path / "2", [[answered(bytes(older.slot_size), older)]], older).read_bytes()
    (tmp_path / "both").write_bytes(first + second)
    with Capture(tmp_path / "both") as capture:
        assert [one.event.interface.id for one in capture] == ["vm_event-7", "vm_event-3"]
        assert capture.totals is not None
        assert capture.totals.requests == 2


def test_what_is_no_capture(tmp_path: Path) -> None:
    for data in (b"", b"x", b"\xd4\xc3\xb2\xa1" + bytes(20), CR3, b"\x0a\x0d\x0d\x0a"):
        (tmp_path / "no").write_bytes(data)
        with pytest.raises(DamagedInputError):
            Capture(tmp_path / "no")
    with pytest.raises(UsageError):
        Capture(tmp_path / "missing")
    assert V7.slot_size == len(CR3)


def test_the_documentation_reads_a_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "captures.md").read_text()
    (block,) = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)
    exec(block, {"path": write_capture(tmp_path / "c.pcapng", [[answered()]])})
    assert capsys.readouterr().out == "tiny vm_event-7\nwrite_ctrlreg allow 500\n"
