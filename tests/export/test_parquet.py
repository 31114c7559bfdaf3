"""The dataset: one schema for everything, every value in its column, read as it is by DuckDB."""

from __future__ import annotations

import itertools
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.export import golden
from tests.export.flat import noise, payload, registers
from tests.export.samples import SAMPLES, START_NS
from xenintro.abi import Interface, interface
from xenintro.capture.info import CaptureInfo
from xenintro.errors import UsageError
from xenintro.export import Options
from xenintro.export.columns import COMMON, PAYLOADS, common
from xenintro.export.output import export

pq = pytest.importorskip("pyarrow.parquet")
duckdb = pytest.importorskip("duckdb")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xenintro.answered import Answered


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for sample in SAMPLES.values():
        export("parquet", *sample, tmp_path)
    return tmp_path


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows without their time: nanoseconds do not go into a datetime."""
    found: list[dict[str, Any]] = pq.read_table(path).drop_columns("ts").to_pylist()
    return found


def query(path: Path, text: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        answer: list[tuple[Any, ...]] = connection.sql(text.format(f"'{path}/**/*.parquet'")).fetchall()
        return answer


def test_golden(dataset: Path) -> None:
    text = ""
    for name in files(dataset):
        text += name + "\n"
        for row in rows(dataset / name):
            text += (
                "  " + "  ".join(f"{key}={value}" for key, value in row.items() if value is not None) + "\n"
            )
    golden.check("dataset.txt", text)


#: One interface for each layout of the register block, and those without.
LAYOUTS = [
    *(interface(f"mem_event-{one}") for one in ("4.0.0", "4.4", "rfc3")),
    *(interface(f"vm_event-{version}") for version in (1, 4, 5, 7)),
    *(interface(f"vm_event-{version}", "arm64") for version in (2, 7)),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_value_is_that_of_the_json_line(layout: Interface, tmp_path: Path) -> None:
    events = noise(layout, 150)
    export("parquet", CaptureInfo(abi=layout.id), events, tmp_path)
    stored, columns = rows(tmp_path), common(events)
    assert len(stored) == len(events)
    for seq, (row, answered) in enumerate(zip(stored, events, strict=True)):
        event = answered.event
        expected = dict.fromkeys(name for name in row if "." in name)
        expected |= {f"{event.reason}.{name}": value for name, value in payload(event).items()}
        expected |= {f"regs.{name}": value for name, value in (registers(event) or {}).items()}
        expected |= {name: columns[name][seq] for name in COMMON} | {"seq": seq, "domid": None}
        assert {name: row[name] for name in expected} == expected


def test_times_keep_their_nanoseconds(dataset: Path) -> None:
    (first,) = query(dataset, "SELECT epoch_ns(min(ts)) FROM {}")
    assert first == (START_NS,)


def test_values_of_64_bits_are_unsigned(dataset: Path) -> None:
    text = 'SELECT count(*), max("regs.rip") FROM {} WHERE "regs.rip" >= 9223372036854775808'
    assert query(dataset, text) == [(6, 0xFFFFF80000102030)]


def test_partitions_are_columns(dataset: Path) -> None:
    text = "SELECT domain, hour, count(*) FROM {} GROUP BY ALL ORDER BY ALL"
    assert query(dataset, text) == [
        ("arm guest", "2026-11-22T16", 2),
        ("unknown", "2026-11-22T16", 2),
        ("unknown", "2026-11-22T17", 2),
        ("win10", "2026-11-22T16", 2),
        ("win10", "2026-11-22T17", 22),
    ]


def test_a_domain_that_is_no_folder_name(tmp_path: Path) -> None:
    sample = SAMPLES["arm"]
    info = CaptureInfo(abi="vm_event-7", arch="arm64", domain="../a=b/c")
    export("parquet", info, sample.events, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["domain=..%2Fa%3Db%2Fc"]
    assert query(tmp_path, "SELECT DISTINCT domain FROM {}") == [("../a=b/c",)]


def test_a_capture_is_added_once(dataset: Path) -> None:
    before = files(dataset)
    with pytest.raises(UsageError, match="exists"):
        export("parquet", *SAMPLES["x86"], dataset)
    assert files(dataset) == before
    export("parquet", *SAMPLES["x86"], dataset, Options(force=True))
    assert files(dataset) == before


def test_files_are_private_and_whole_or_gone(tmp_path: Path) -> None:
    def torn() -> Iterator[Answered]:
        yield from SAMPLES["x86"].events[:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export("parquet", SAMPLES["x86"].info, torn(), tmp_path)
    assert files(tmp_path) == []
    export("parquet", *SAMPLES["x86"], tmp_path)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in files(tmp_path)} == {0o600}


def test_row_groups_are_cut_to_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenintro.export.parquet._ROWS", 3)
    events = noise(interface("vm_event-7"), 10)
    export("parquet", CaptureInfo(abi="vm_event-7"), events, tmp_path)
    (file,) = tmp_path.rglob("*.parquet")
    metadata = pq.ParquetFile(file).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [3, 3, 3, 1]
    assert [row["seq"] for row in rows(tmp_path)] == list(range(10))


def test_the_capture_is_told_by_every_file(dataset: Path) -> None:
    file = next(dataset.rglob("domain=win10/**/*.parquet"))
    assert b'"uuid":"6e0c4b2a' in pq.ParquetFile(file).schema_arrow.metadata[b"xenintro"]


def test_a_payload_is_null_in_the_rows_of_others(dataset: Path) -> None:
    for reason, members in PAYLOADS.items():
        either = " OR ".join(f'"{reason}.{name}" IS NOT NULL' for name in members)
        found = query(dataset, f"SELECT DISTINCT reason FROM {{}} WHERE {either}")
        assert list(itertools.chain(*found)) in ([reason], [])
