"""The queries of docs/exports.md run, and find what is there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.export.samples import SAMPLES
from xenintro.export import FORMATS
from xenintro.export.output import export

PAGE = (Path(__file__).parents[2] / "docs" / "exports.md").read_text()


def queries(section: str) -> list[str]:
    text = re.search(rf"\n## {section}\n(.*?)(?=\n## |\Z)", PAGE, flags=re.DOTALL)
    assert text is not None
    block = re.search(r"```sql\n(.*?)```", text[1], flags=re.DOTALL)
    assert block is not None
    return [query for query in block[1].split(";\n") if query.strip()]


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "out.sqlite"
    export("sqlite", *SAMPLES["x86"], path)
    with closing(sqlite3.connect(path)) as database:
        written, lstar, minutes = (database.execute(query).fetchall() for query in queries("SQLite"))
    assert written == [("0x000000000001a2b3", "0xfffff80000102030", 2, 250_000)]
    assert [row[4] for row in lstar] == ["allow", "deny", "allow"]
    assert minutes == [("2026-11-22T17:00", "freeze-lstar", 1)]


def test_duckdb(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    for sample in SAMPLES.values():
        export("parquet", *sample, tmp_path)
    with duckdb.connect() as database:
        pages, waited = (
            database.sql(query.replace("DIR", str(tmp_path))).fetchall() for query in queries("Parquet")
        )
    assert ("win10", "0x1a2b3", 2) in pages
    assert {row[:2] for row in waited} == {
        (domain, hour)
        for domain, hour in (
            ("arm guest", "2026-11-22T16"),
            ("unknown", "2026-11-22T16"),
            ("unknown", "2026-11-22T17"),
            ("win10", "2026-11-22T16"),
            ("win10", "2026-11-22T17"),
        )
    }


def test_every_format_is_told() -> None:
    assert all(f"`{name}`" in PAGE for name in FORMATS)
