"""Every field that tshark shows is the one that xenintro decodes, for every interface and reason."""

from __future__ import annotations

import gzip
import random
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.capture.wireshark import Tshark, needs_tshark
from tests.golden import golden_pages
from tests.slots import make_slot
from xenintro.abi import ARCHITECTURES, INTERFACE_IDS, SLOT0, Interface, interface
from xenintro.answered import Answered
from xenintro.capture import CaptureInfo, CaptureWriter, blocks
from xenintro.codec import acknowledge, decode, encode
from xenintro.errors import UsageError
from xenintro.events import MemAccess, MovToMsr, WriteCtrlreg
from xenintro.fields import FIELDS
from xenintro.guest import GuestRead
from xenintro.response import Response, allow
from xenintro.sinks.jsonl import event_record
from xenintro.sinks.text import Lines
from xenintro.wireshark.dissector import dissector
from xenintro.wireshark.install import PROFILE, dissector_file, install
from xenintro_cli.style import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from xenintro.events import Event

pytestmark = needs_tshark

STARTED_NS = 1_795_624_823_666_359_835
LINES = Lines(Style(color=False, utf8=True), None)


@pytest.fixture(scope="module")
def tshark(tmp_path_factory: pytest.TempPathFactory) -> Tshark:
    return Tshark(tmp_path_factory.mktemp("home"))


def info_of(layout: Interface) -> CaptureInfo:
    return CaptureInfo(
        abi=layout.id, arch=layout.arch, release=layout.release, domain="tiny", started_ns=STARTED_NS
    )


def write_capture(path: Path, layout: Interface, answered: Iterable[Answered]) -> Path:
    with CaptureWriter(path, info_of(layout)) as writer:
        writer.write(list(answered))
    return path


def requests_only(events: Iterable[Event]) -> list[Answered]:
    return [Answered(event, "unanswered", b"", n, n) for n, event in enumerate(events)]


def write_all(path: Path, by_layout: dict[Interface, list[bytes]]) -> Path:
    """One file with an interface description for each layout."""
    parts = [
        write_capture(
            path.with_name(f"part-{n}"), layout, requests_only(decode(raw, layout) for raw in slots)
        )
        for n, (layout, slots) in enumerate(by_layout.items())
    ]
    subprocess.run(["mergecap", "-a", "-I", "none", "-w", path, *parts], check=True)
    return path


def golden_slots() -> dict[Interface, list[bytes]]:
    """Slots of all golden pages, stale ones included: random bytes in any interface."""
    found: dict[Interface, list[bytes]] = {}
    for page in golden_pages():
        size = page.interface.slot_size
        for n in range(8):
            start = SLOT0 + n * size
            found.setdefault(page.interface, []).append(page.page[start : start + size])
    return found


def made_slots() -> dict[Interface, list[bytes]]:
    """Every reason of every interface with all bits of every field at random, and with none."""
    chance = random.Random(4)

    def slots(layout: Interface) -> Iterable[bytes]:
        for code in layout.reasons or [0]:
            yield make_slot(layout, code, paused=True)
            noise = bytearray(chance.randbytes(layout.slot_size))
            clean = make_slot(layout, code)
            for field in layout.header.values():
                if field.name in ("version", "reason"):
                    noise[field.offset : field.offset + field.size] = clean[
                        field.offset : field.offset + field.size
                    ]
            yield bytes(noise)

    return {
        layout: list(slots(layout))
        for layout in (interface(one, arch) for one in INTERFACE_IDS for arch in ARCHITECTURES)
    }


def expected_fields(event: Event) -> dict[str, Any]:
    """The JSON line's keys as the dissector names them; what is null is absent."""
    record = event_record(event)
    fields = {
        "reason": record["reason"],
        "abi": record["abi"],
        "arch": record["arch"],
        "vcpu_id": record["vcpu_id"],
        "flags": event.flags,
        "altp2m_idx": record.get("altp2m_idx"),
        **{f"flags.{name}": int(name in record["flags"]) for name in event.interface.flag_names.values()},
        **{f"{event.reason}.{key}": value for key, value in record[event.reason].items()},
    }
    for name, value in (record["regs"] or {}).items():
        if isinstance(value, dict):
            fields |= {f"regs.{name}.limit": value["limit"], f"regs.{name}.ar": value["ar"]}
        else:
            fields[f"regs.{name}"] = value
    return {key: number(value) for key, value in fields.items() if value is not None}


def number(value: Any) -> Any:
    """Numbers as numbers, however they are written; bytes without colons."""
    if not isinstance(value, str):
        return int(value)
    if ":" in value or len(value) > len(str(2**64)):
        return value.replace(":", "")
    try:
        return int(value, 16 if value.startswith("0x") else 10)
    except ValueError:
        return value


#: What the dissector shows beside the keys of a JSON line.
BESIDE = {
    *(f"vm_event.mem_access.access.{letter}" for letter in "rwx"),
    "vm_event.domain",
    "vm_event.direction",
    "vm_event.version",
    "vm_event.reason_code",
}


def shown_fields(packet: dict[str, list[str]]) -> dict[str, Any]:
    return {
        name.removeprefix("vm_event."): number(values[0])
        for name, values in packet.items()
        if name.startswith("vm_event.") and name not in BESIDE and not name.endswith("_tree")
    }


@pytest.mark.parametrize("make", [golden_slots, made_slots])
def test_fields_are_those_of_the_json_line(
    make: Callable[[], dict[Interface, list[bytes]]], tshark: Tshark, tmp_path: Path
) -> None:
    by_layout = make()
    capture = write_all(tmp_path / "all.pcapng", by_layout)
    events = [decode(raw, layout) for layout, slots in by_layout.items() for raw in slots]
    packets = tshark.packets(capture)
    assert len(packets) == len(events)
    for event, packet in zip(events, packets, strict=True):
        expected = expected_fields(event)
        shown = shown_fields(packet)
        assert {k: v for k, v in shown.items() if v != "" or k in expected} == expected, event


def test_the_info_column_reads_like_the_human_line(tshark: Tshark, tmp_path: Path) -> None:
    by_layout = made_slots()
    events = [decode(raw, layout) for layout, slots in by_layout.items() for raw in slots]
    infos = tshark.infos(write_all(tmp_path / "all.pcapng", by_layout))
    for event, info in zip(events, infos, strict=True):
        line = LINES.line(event, time_ns=None, answer=None, pause_ns=None).split()
        assert [word for word in line[2:] if word != "-"] == info.split()
        assert line[1] == f"v{event.vcpu_id}"


#: A display filter, and what it says in Python.
FILTERS: dict[str, Callable[[Event], object]] = {
    'vm_event.reason == "write_ctrlreg"': lambda e: isinstance(e, WriteCtrlreg),
    "vm_event.mov_to_msr": lambda e: isinstance(e, MovToMsr),
    "vm_event.write_ctrlreg.new_value == 0x8000000000000001": lambda e: (
        isinstance(e, WriteCtrlreg) and e.new_value == 0x8000000000000001
    ),
    "vm_event.write_ctrlreg.new_value > 0x8000000000000000": lambda e: (
        isinstance(e, WriteCtrlreg) and e.new_value > 0x8000000000000000
    ),
    'vm_event.write_ctrlreg.register == "cr3"': lambda e: isinstance(e, WriteCtrlreg) and e.register == "cr3",
    'vm_event.mov_to_msr.register == "lstar"': lambda e: isinstance(e, MovToMsr) and e.register == "lstar",
    'vm_event.mov_to_msr.msr == "lstar"': lambda e: isinstance(e, MovToMsr) and e.msr == 0xC0000082,
    "vm_event.mem_access.gfn in {0x1005, 0x1008 .. 0x100a}": lambda e: (
        isinstance(e, MemAccess) and e.gfn in (0x1005, 0x1008, 0x1009, 0x100A)
    ),
    'vm_event.mem_access.access contains "w"': lambda e: isinstance(e, MemAccess) and "w" in e.access,
    "vm_event.mem_access.access.x == 1": lambda e: isinstance(e, MemAccess) and "x" in e.access,
    "vm_event.mem_access.gla_valid == 1": lambda e: isinstance(e, MemAccess) and e.gla_valid,
    "vm_event.flags.vcpu_paused == 1": lambda e: e.paused,
    "vm_event.vcpu_id == 3": lambda e: e.vcpu_id == 3,
    "vm_event.regs.rip == 0xffffffff81000000": lambda e: e.registers.get("rip") == 0xFFFFFFFF81000000,
    "vm_event.regs.dr7": lambda e: e.registers.get("dr7") is not None,
    "vm_event.regs.pc": lambda e: e.registers.get("pc") is not None,
    'vm_event.abi == "mem_event-4.5"': lambda e: e.interface.id == "mem_event-4.5",
}


def filtered_slots() -> dict[Interface, list[bytes]]:
    """Slots whose values are rarely unique."""
    chance = random.Random(5)
    values = (0, 0x1005, 0x1009, 0xC0000082, 0x8000000000000001, 0xFFFFFFFF81000000)

    def slot(layout: Interface) -> bytes:
        code = chance.choice(list(layout.reasons))
        payload = {
            name: chance.choice(values) & (1 << (field.bits or field.size * 8)) - 1
            for name, field in layout.payloads.get(layout.reasons[code], {}).items()
        }
        for name in {"index", "flags"} & payload.keys():
            payload[name] = chance.randrange(8)
        if layout.reasons[code] == "unknown":
            payload = {}
        registers = {
            name: chance.choice(values) for name, field in layout.registers.items() if field.code == "Q"
        }
        return make_slot(
            *(layout, code),
            vcpu_id=chance.randrange(4),
            paused=chance.random() < 0.5,
            payload=payload,
            registers=registers,
        )

    layouts = [interface("vm_event-7"), interface("vm_event-3", "arm64"), interface("mem_event-4.5")]
    layouts += [interface("vm_event-1", release=release) for release in ("4.6", "4.7")]
    return {layout: [slot(layout) for _ in range(60)] for layout in layouts}


def test_display_filters_select_what_python_selects(tshark: Tshark, tmp_path: Path) -> None:
    by_layout = filtered_slots()
    capture = write_all(tmp_path / "all.pcapng", by_layout)
    events = [decode(raw, layout) for layout, slots in by_layout.items() for raw in slots]
    selected = tshark.selected(capture, list(FILTERS))
    for (display_filter, wanted), numbers in zip(FILTERS.items(), selected, strict=True):
        expected = [n for n, event in enumerate(events) if wanted(event)]
        assert expected, f"no event for {display_filter}"
        assert numbers == expected, display_filter


class Rule:
    name = "freeze lstar"
    level = "critical"
    tags = ("T1014", "a,b")

    def message(self, event: Event) -> str:
        return f"on v{event.vcpu_id}"


def answered_capture(path: Path, layout: Interface) -> Path:
    """Allowed, denied, only observed, by the deadline, asynchronous, without an answer."""
    paused = make_slot(layout, 5, vcpu_id=3, paused=True, payload={"msr": 0xC0000082, "new_value": 7})
    asynchronous = make_slot(layout, 8)
    event, other = decode(paused, layout), decode(asynchronous, layout)
    deny = encode(event, Response.deny())
    return write_capture(
        path,
        layout,
        [
            Answered(event, "allow", encode(event, allow(event)), 0, 27_104),
            Answered(event, "deny", deny, 100_000, 5_000_000_000, Rule()),
            Answered(event, "allow", encode(event, allow(event)), 200_000, 201_000, Rule(), "deny"),
            Answered(event, "allow", acknowledge(paused, layout), 300_000, 9_300_000, late=True),
            Answered(other, "allow", encode(other, allow(other)), 400_000, 401_000),
            Answered(event, "unanswered", b"", 500_000, 500_000),
        ],
    )


def test_a_response_shows_what_became_of_the_request(tshark: Tshark, tmp_path: Path) -> None:
    capture = answered_capture(tmp_path / "one.pcapng", interface("vm_event-7"))
    by_id: dict[str, dict[str, dict[str, list[str]]]] = {}
    for packet in tshark.packets(capture):
        by_id.setdefault(packet["frame.packet_id"][0], {})[packet["vm_event.direction"][0]] = packet
    keys = ("answer", "rule", "level", "tags", "message", "would", "late", "pause_ns")

    def said(n: int) -> tuple[Any, ...]:
        response = by_id[str(n)]["response"]
        assert response["vm_event.request_in"] == by_id[str(n)]["request"]["frame.number"]
        return tuple(response.get(f"vm_event.{key}") for key in keys)

    rule = (["freeze lstar"], ["critical"], ["T1014", "a,b"], ["on v3"])
    assert said(0) == (["allow"], None, None, None, None, None, ["0"], ["27104"])
    assert said(1) == (["deny"], *rule, None, ["0"], ["4999900000"])
    assert said(2) == (["allow"], *rule, ["deny"], ["0"], ["1000"])
    assert said(3) == (["allow"], None, None, None, None, None, ["1"], ["9000000"])
    assert said(4) == (["allow"], None, None, None, None, None, ["0"], None)
    assert "response" not in by_id["5"]
    assert by_id["1"]["response"]["vm_event.flags.deny"] == ["1"]
    assert by_id["1"]["response"]["vm_event.mov_to_msr.new_value"] == ["0x0000000000000007"]
    assert "vm_event.mov_to_msr.msr" not in by_id["3"]["response"]  # a bare acknowledgement
    assert tshark.selected(capture, ['vm_event.answer == "deny" && vm_event.mov_to_msr.msr == "lstar"'])[0]
    # Answers come in the order of their times, and a second pass knows them when it sees the request.
    infos = tshark.infos(capture, "-Y", 'vm_event.direction == "response"')
    assert sorted(infos) == [
        "guest_request  allow",
        "mov_to_msr  DENY  5.0 s  freeze lstar  on v3",
        "mov_to_msr  allow  1.0 µs  would deny  freeze lstar  on v3",
        "mov_to_msr  allow  27 µs",
        "mov_to_msr  allow  9.0 ms",
    ]
    second = tshark.packets(capture, "-2", "-Y", "vm_event.response_in")
    assert len(second) == 5


def test_a_response_shows_the_data_that_it_carries(tshark: Tshark, tmp_path: Path) -> None:
    layout = interface("vm_event-7")
    responses = {
        "plain": (8, Response.plain()),
        "registers": (8, Response.set_registers({"rip": 0x1234})),
        "read": (1, Response.emulate(read_data=b"\x01\x02\xff")),
        "instruction": (1, Response.emulate(insn_data=bytes(range(16)))),
        "step": (7, Response.fast_singlestep(5)),
        "view": (7, Response.single_step().in_view(2)),
    }
    answered = []
    for n, (code, response) in enumerate(responses.values()):
        event = decode(make_slot(layout, code, paused=True, registers={"rip": 0x1000}), layout)
        answered.append(Answered(event, response.name, encode(event, response), 2 * n, 2 * n + 1))
    packets = tshark.packets(write_capture(tmp_path / "data.pcapng", layout, answered))
    shown = dict(zip(responses, packets[1::2], strict=True))
    assert "vm_event.regs.rip" not in shown["plain"]
    assert shown["registers"]["vm_event.regs.rip"] == ["0x0000000000001234"]
    assert shown["read"]["vm_event.emul_read_data"] == ["01:02:ff"]
    assert "vm_event.regs.rip" not in shown["read"]
    assert shown["instruction"]["vm_event.emul_insn_data"] == [":".join(f"{n:02x}" for n in range(16))]
    assert shown["step"]["vm_event.fast_singlestep_p2midx"] == ["5"]
    assert "vm_event.singlestep.gfn" not in shown["step"]
    assert shown["view"]["vm_event.altp2m_idx"] == ["2"]
    assert shown["view"]["vm_event.flags.alternate_p2m"] == ["1"]


def test_ring_pages_and_guest_memory(tshark: Tshark, tmp_path: Path) -> None:
    for page in [p for p in golden_pages() if p.name in ("mem_event-4.0.0/s2", "vm_event-v7-4.17/s3")]:
        path = tmp_path / page.name.replace("/", "-")
        with CaptureWriter(path, info_of(page.interface)) as writer:
            writer.page(page.page, 1)
        [packet] = tshark.packets(path)
        requests = page.expected["held_requests"] + page.expected["requests"]
        assert packet["vm_event.ring.req_prod"] == [str(page.expected["ring"]["req_prod"])]
        assert packet["vm_event.ring.unanswered"] == [str(len(requests))]
        assert packet["vm_event.ring.ring_index"] == [str(request["index"]) for request in requests]
        assert packet["vm_event.vcpu_id"] == [str(request["vcpu_id"]) for request in requests]
    layout = interface("vm_event-7")
    event = decode(make_slot(layout, 8, paused=True), layout)
    with CaptureWriter(tmp_path / "memory", info_of(layout)) as writer:
        writer.write(
            [Answered(event, "allow", b"", 0, 0)], {0: [GuestRead(0, 0xFFFF_FFFF_F000, b"\xcc\x90")]}
        )
    memory = tshark.packets(tmp_path / "memory")[1]
    assert memory["vm_event.memory.gpa"] == ["0x0000fffffffff000"]
    assert memory["vm_event.memory.data"] == ["cc:90"]


Packet = tuple[int, bytes]


def raw_capture(path: Path, packets: dict[tuple[str, str], list[Packet]]) -> Path:
    """Any bytes as packets of any of the three link types, by name and description of their interfaces."""
    interfaces, made = b"", b""
    for n, ((name, description), few) in enumerate(packets.items()):
        options = [(blocks.IF_NAME, name.encode()), (blocks.IF_DESCRIPTION, description.encode())]
        for link in range(3):
            interfaces += blocks.interface_description(147 + link, options)
        for at, (link, data) in enumerate(few):
            packet = blocks.Packets(3 * n + link, len(data))
            made += packet.block(data, at, blocks.INBOUND + at % 2, at, 0)
    path.write_bytes(blocks.section_header([]) + interfaces + made)
    return path


def test_damaged_packets_are_said_to_be(tshark: Tshark, tmp_path: Path) -> None:
    chance = random.Random(6)
    sizes = (0, 1, 3, 4, 15, 16, 31, 32, 39, 40, 57, 296, 312, 399, 400, 401, 4095, 4096, 4097)
    junk = [(link, chance.randbytes(size)) for link in range(3) for size in sizes for _ in range(2)]
    junk += [(0, b"\xff" * 400), (1, b"\xff" * 4096), (1, bytes(4096)), (2, bytes(8))]
    described = ["vm_event-7 x86_64"] + [
        f"{abi} {arch}" for abi in (*INTERFACE_IDS, "vm_event-8", "") for arch in ARCHITECTURES
    ]
    path = raw_capture(tmp_path / "junk", {("xen:tiny:monitor", text): junk for text in described})
    tshark.run("-r", str(path), "-V")
    damaged = tshark.selected(path, ["vm_event.damaged"])[0]
    for n, (link, data) in enumerate(junk):  # of vm_event-7, which is the first
        good = (link == 0 and len(data) == 400) or (link == 2 and len(data) >= 8)
        good |= link == 1 and len(data) == 4096 and data[:4] == data[8:12]
        assert (n in damaged) != good, (link, len(data))


def test_files_that_do_not_say_their_interface(tshark: Tshark, tmp_path: Path) -> None:
    mine = make_slot(interface("vm_event-7", "arm64"), 8, registers={"pc": 0x1234})
    old = make_slot(interface("mem_event-4.2"), 1, payload={"gfn": 0x77})
    packets = [(0, mine), (0, old), (0, b"others' data")]
    path = raw_capture(tmp_path / "foreign", {("eth0", ""): packets})
    told, other, third = tshark.packets(path)
    assert told["vm_event.abi"] == ["vm_event-7"]  # by version and size
    assert told["vm_event.arch"] == ["x86_64"]
    assert "vm_event.abi" not in other
    assert "vm_event.abi" not in third
    arm = tshark.packets(path, "-o", "vm_event.arch:arm64")[0]
    assert arm["vm_event.regs.pc"] == ["0x0000000000001234"]
    named = tshark.packets(path, "-o", "vm_event.abi:mem_event-4.2")[1]
    assert named["vm_event.mem_access.gfn"] == ["0x0000000000000077"]


def compressed(data: bytes, kind: str) -> bytes:
    if kind == "gz":
        return gzip.compress(data)
    return bytes(pytest.importorskip("zstandard").compress(data))


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_compressed_captures_are_read(kind: str, tshark: Tshark, tmp_path: Path) -> None:
    plain = answered_capture(tmp_path / "one.pcapng", interface("vm_event-7"))
    packed = tmp_path / f"one.pcapng.{kind}"
    packed.write_bytes(compressed(plain.read_bytes(), kind))
    assert tshark.infos(packed) == tshark.infos(plain)


def test_torn_captures_are_read_up_to_the_tear(tshark: Tshark, tmp_path: Path) -> None:
    plain = answered_capture(tmp_path / "one.pcapng", interface("vm_event-7"))
    whole = tshark.infos(plain)
    torn = tmp_path / "torn.pcapng"
    torn.write_bytes(plain.read_bytes()[:-500])
    read = tshark.run("-r", str(torn), "-T", "fields", "-e", "_ws.col.Info", code=2).splitlines()
    assert read == whole[: len(read)]
    assert len(read) == len(whole) - 1


def test_capinfos_tells_of_section_and_totals(tmp_path: Path) -> None:
    info = CaptureInfo(
        abi="vm_event-7", release="4.17", xen="4.17.7", domain="tiny", os="Linux 6.1", version="0.1.0",
        started_ns=STARTED_NS,
    )  # fmt: skip
    layout = interface("vm_event-7")
    event = decode(make_slot(layout, 8, paused=True), layout)
    with CaptureWriter(tmp_path / "one", info) as writer:
        writer.write([Answered(event, "allow", encode(event, allow(event)), 5, 10)] * 3)
        writer.lost = 2
    told = subprocess.run(["capinfos", tmp_path / "one"], capture_output=True, text=True, check=True).stdout
    for expected in ("Xen 4.17.7, vm_event-7", "Linux 6.1", "xenintro 0.1.0", "xen:tiny:monitor"):
        assert expected in told
    assert "nanoseconds (9)" in told
    assert "Number of stat entries = 1" in told


def test_installed_it_needs_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "WIRESHARK_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    capture = answered_capture(tmp_path / "one.pcapng", interface("vm_event-7"))
    plugin, colors = install()
    assert plugin.is_relative_to(tmp_path)
    told = Tshark(tmp_path)
    plain = told.run("-r", str(capture), script=False)
    assert "mov_to_msr  DENY" in plain
    # The script named as well does no harm.
    assert told.run("-r", str(capture)) == plain
    rules = told.run(
        *("-C", PROFILE, "--color", "-r", str(capture), "-T", "fields", "-e", "frame.coloring_rule.name"),
        script=False,
    )
    assert sorted(set(rules.splitlines())) == [
        "",
        "MSRs",
        "answered by the deadline",
        "denied or changed",
        "would be denied or changed",
    ]
    assert told.selected(capture, [line.split("@")[2] for line in colors.read_text().splitlines()[1:]])


def test_the_file_to_name_is_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = dissector_file()
    assert path.read_text() == dissector()
    before = path.stat()
    assert dissector_file().stat() == before
    tmp_path.joinpath("file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot write"):
        dissector_file()


def test_every_field_of_the_vocabulary_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    install()
    rows = [line.split("\t") for line in Tshark(tmp_path).run("-G", "fields", script=False).splitlines()]
    names = {row[2] for row in rows if row[0] == "F"}
    # frame.time_epoch and frame.packet_id are the latter; a capture's interfaces name the domain only.
    assert {name for name in FIELDS if f"vm_event.{name}" not in names} == {"domid", "ts", "seq"}
