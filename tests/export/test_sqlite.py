"""The database: every value in its column, in an order that SQL sees as numbers have it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.export import golden
from tests.export.flat import layouts, noise, payload, registers
from tests.export.samples import SAMPLES
from xenintro.capture.info import CaptureInfo
from xenintro.errors import XenintroError
from xenintro.export.columns import PAYLOADS, Kind, all_registers
from xenintro.export.output import export
from xenintro.export.sqlite import _hexadecimal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenintro.abi import Interface


def rows(path: Path, query: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query)]


def tables(path: Path) -> list[str]:
    return [row["name"] for row in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "x86.sqlite"
    export("sqlite", *SAMPLES["x86"], path)
    return path


@pytest.mark.parametrize("name", SAMPLES)
def test_golden(name: str, tmp_path: Path) -> None:
    path = tmp_path / "out.sqlite"
    export("sqlite", *SAMPLES[name], path)
    text = ""
    for table in tables(path)[1:]:
        for row in rows(path, f"SELECT * FROM {table}"):
            text += f"{table}  " + "  ".join(f"{k}={v}" for k, v in row.items() if v is not None) + "\n"
    golden.check(f"{name}.sqlite.txt", text)


def test_meta_is_what_the_capture_says_of_itself(database: Path) -> None:
    info = SAMPLES["x86"].info
    told = {row["key"]: row["value"] for row in rows(database, "SELECT * FROM meta")}
    assert list(told) == list(info.__struct_fields__)
    assert (told["uuid"], told["nr_vcpus"], told["deadline"]) == (info.uuid, 2, 0.25)
    assert json.loads(told["policies"]) == info.policies


@pytest.mark.parametrize("layout", layouts(), ids=str)
def test_every_value_is_that_of_the_json_line(layout: Interface, tmp_path: Path) -> None:
    path, events = tmp_path / "out.sqlite", noise(layout, 200)
    export("sqlite", CaptureInfo(abi=layout.id), events, path)
    stored = {
        table: {row.pop("seq"): row for row in rows(path, f"SELECT * FROM {table}")}
        for table in tables(path)[1:]
    }
    assert len(stored["events"]) == len(events)
    for seq, answered in enumerate(events):
        event = answered.event
        kinds = {name: member.kind for name, member in PAYLOADS.get(event.reason, {}).items()}
        assert numbers(stored.get(event.reason, {}).get(seq, {}), kinds) == payload(event)
        expected = registers(event)
        if expected is None:
            assert seq not in stored["regs"]
        else:
            assert numbers(stored["regs"][seq], all_registers()) == dict.fromkeys(all_registers()) | expected
    assert sum(len(stored[reason]) for reason in PAYLOADS) == sum(
        answered.event.reason in PAYLOADS for answered in events
    )


def numbers(row: dict[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Texts of 64-bit columns as numbers; each has its 18 characters."""
    assert all(len(row[name]) == 18 for name, kind in kinds.items() if kind is Kind.U64 and row[name])
    return {
        name: int(value, 16) if kinds[name] is Kind.U64 and value is not None else value
        for name, value in row.items()
    }


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 1 << 63, (1 << 63) - 1, (1 << 64) - 1])))
def test_texts_sort_as_their_numbers(values: list[int]) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE t (v TEXT)")
        database.executemany("INSERT INTO t VALUES (?)", [(text,) for text in _hexadecimal(values)])
        ordered = [int(text, 16) for (text,) in database.execute("SELECT v FROM t ORDER BY v")]
    assert ordered == sorted(values)


def test_numbers_compare_across_the_sign(database: Path) -> None:
    kernel = rows(database, "SELECT count(*) AS n FROM regs WHERE rip >= '0x8000000000000000'")
    assert kernel == [{"n": 6}]
    (one,) = rows(
        database, "SELECT seq FROM write_ctrlreg WHERE new_value = printf('0x%016x', 0x103000) LIMIT 1"
    )
    assert one == {"seq": 3}


def test_indices_serve_the_queries(database: Path) -> None:
    for query in (
        "SELECT * FROM mem_access WHERE gfn = '0x000000000001a2b3'",
        "SELECT * FROM regs WHERE rip >= '0xfffff80000000000'",
        "SELECT * FROM events WHERE rule = 'freeze-lstar'",
        "SELECT * FROM events WHERE ts_ns > 0",
    ):
        (plan,) = rows(database, f"EXPLAIN QUERY PLAN {query}")
        assert "USING INDEX" in plan["detail"]


def test_what_sqlite_cannot_write_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("xenintro.export.sqlite._write", full)
    with pytest.raises(XenintroError, match="cannot write") as caught:
        export("sqlite", *SAMPLES["x86"], tmp_path / "out.sqlite")
    assert caught.value.why == "database or disk is full"
    assert not any(tmp_path.iterdir())
