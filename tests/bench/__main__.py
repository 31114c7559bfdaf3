"""``make bench``: a table for people on stdout, the same as JSON in bench.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.answering import codec_rows, take_to_answer_row
from tests.bench.exports import export_rows
from tests.bench.expressions import expression_rows
from tests.bench.lab import lab_rows
from tests.bench.recording import recording_rows
from tests.bench.simulator import simulator_rows

if TYPE_CHECKING:
    from tests.bench.measure import Row, Timing


def main() -> None:
    """Measure everything that this machine can measure."""
    rows: list[Row] = []
    for part in (
        codec_rows,
        expression_rows,
        take_to_answer_row,
        recording_rows,
        simulator_rows,
        export_rows,
        lab_rows,
    ):
        for row in part():
            rows.append(row)
            print(line(row), flush=True)
    Path("bench.json").write_text(json.dumps([_record(row) for row in rows], indent=1) + "\n")
    print("wrote bench.json", file=sys.stderr)


def line(row: Row) -> str:
    """A row for people."""
    text = f"{row.name:<46} {_timing(row.ours)} {row.unit:<9}"
    if row.reference is not None and row.ratio is not None:
        text += f" {row.reference_name} {_timing(row.reference)}   ratio {_timing(row.ratio, 2)}"
    return text + (f"   goal {row.goal}" if row.goal else "")


def _timing(timing: Timing, digits: int | None = None) -> str:
    if digits is None:
        digits = 0 if timing.median >= 100 else 2
    return f"{timing.median:.{digits}f} ({timing.low:.{digits}f}-{timing.high:.{digits}f})"


def _record(row: Row) -> dict[str, object]:
    record = row._asdict()
    for name in ("ours", "reference", "ratio"):
        timing: Timing | None = record[name]
        record[name] = None if timing is None else timing._asdict()
    return record


if __name__ == "__main__":
    main()
