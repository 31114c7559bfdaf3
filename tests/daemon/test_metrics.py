"""The textfile: what Prometheus' own parser reads must be what the service counted."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.daemon import CONFIG, daemon
from xenintro.service.metrics import METRICS
from xenintro.stats import Histogram


def read(path: Path) -> dict[str, list]:
    return {family.name: family.samples for family in text_string_to_metric_families(path.read_text())}


def value(samples: list, name: str, **labels: str) -> float:
    (found,) = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    return found


def test_textfile(tmp_path: Path) -> None:
    path = tmp_path / "xenintro-tiny.prom"
    with daemon(tmp_path, CONFIG + f'[metrics]\ntextfile = "{path}"\n') as service:
        service.ready()
        service.eventually(lambda _: path.exists() and "xenintro_events_total{" in path.read_text())
        during = read(path)
        assert value(during["xenintro_attached"], "xenintro_attached", domain="tiny") == 1
        service.ask("stats")
        assert service.stop().code == 0
        events = service.host.simulation.report()

    metrics = read(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == [], "nothing is left"
    assert set(metrics) == set(METRICS)
    for samples in metrics.values():
        assert all(sample.labels.get("domain", "tiny") == "tiny" for sample in samples)
    for reason in ("write_ctrlreg", "cpuid"):
        name = "xenintro_vcpu_pause_seconds"
        count = value(metrics["xenintro_events"], "xenintro_events_total", reason=reason)
        assert count == value(metrics[name], f"{name}_count", reason=reason)
        buckets = [
            s.value for s in metrics[name] if s.name == f"{name}_bucket" and s.labels["reason"] == reason
        ]
        assert buckets == sorted(buckets), "cumulative"
        assert buckets[-1] == count
        assert len(buckets) == 20
        assert value(metrics[name], f"{name}_sum", reason=reason) > 0
    total = sum(sample.value for sample in metrics["xenintro_events"] if sample.name.endswith("_total"))
    assert 0 < total <= events["events"]
    occupancy = metrics["xenintro_ring_occupancy"]
    assert 0 < value(occupancy, "xenintro_ring_occupancy_sum") <= total
    assert value(occupancy, "xenintro_ring_occupancy_bucket", le="1.0") > 0
    assert value(occupancy, "xenintro_ring_occupancy_count") <= total
    assert value(metrics["xenintro_attached"], "xenintro_attached") == 0
    assert value(metrics["xenintro_build_info"], "xenintro_build_info") == 1


@pytest.mark.parametrize("values", [[], [0, 1, 31, 32, 4095, 4096, 4097, 65535, 1 << 40]])
def test_buckets_are_exact(values: list[int]) -> None:
    histogram = Histogram()
    for one in values:
        histogram.record(one)
    limits = [1 << power for power in range(5, 41)]
    assert histogram.below(limits) == [sum(one < limit for one in values) for limit in limits]


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, CONFIG + '[metrics]\ntextfile = "/nowhere/x.prom"\n') as service:
        service.ready()
        service.eventually(lambda status: status["events"] > 100)
        outcome = service.stop()
        assert outcome.code == 0
        assert "warning: cannot write /nowhere/x.prom" in outcome.stderr


def test_every_metric_is_documented() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    for name, row in METRICS.items():
        assert name + ("_total" if row.kind == "counter" else "") in docs
