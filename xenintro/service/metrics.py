"""Numbers for Prometheus: a text file that node_exporter picks up. Nothing here serves or waits."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xenintro.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from xenintro.service.totals import Totals

#: Upper bounds of the buckets in nanoseconds: 4 µs to 1 s, powers of two, so that none is cut in two.
_BOUNDS = [1 << power for power in range(12, 31)]

#: The same for requests on the ring, which has eight slots since Xen 4.5.
_OCCUPIED = [1, 2, 4, 8]


class Row(NamedTuple):
    """One metric."""

    kind: str
    help: str
    labels: tuple[str, ...] = ("domain",)


METRICS: Mapping[str, Row] = {
    "xenintro_events": Row("counter", "Requests answered.", ("domain", "reason")),
    "xenintro_answers": Row("counter", "Answers to the events asked for.", ("domain", "action")),
    "xenintro_would_answers": Row("counter", "What observed policies would answer.", ("domain", "action")),
    "xenintro_vcpu_pause_seconds": Row("histogram", "How long vCPUs waited.", ("domain", "reason")),
    "xenintro_guest_paused_ratio": Row("gauge", "Share of the vCPUs' time spent waiting, last 5 s."),
    "xenintro_ring_occupancy": Row("histogram", "Requests on the ring when the loop came round."),
    "xenintro_deadline_missed": Row("counter", "Requests answered by the deadline thread."),
    "xenintro_rule_matches": Row("counter", "Events a rule had a say in.", ("domain", "rule", "mode")),
    "xenintro_policy_errors": Row(
        "counter", "Decisions that failed; those events were allowed.", ("domain", "rule")
    ),
    "xenintro_attached": Row("gauge", "1 while the domain is watched."),
    "xenintro_attachments": Row("counter", "How often the domain was attached to."),
    "xenintro_capture_bytes": Row("counter", "Written into captures, before they are compressed."),
    "xenintro_tail_lines_dropped": Row("counter", "Lines that slow readers of ctl tail did not get."),
    "xenintro_build_info": Row("gauge", "Always 1.", ("version", "xen", "interface_version")),
}


class TextFile:
    """Writes the file.

    Args:
        path: of the file; its directory must exist.

    Raises:
        UsageError: prometheus-client is not installed.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        try:
            import prometheus_client  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "metrics.textfile needs prometheus-client",
                why="it is not installed",
                hint="pip install 'xenintro[metrics]'",
            ) from error

    def write(
        self,
        totals: Totals,
        *,
        domain: str,
        attached: bool,
        dropped: int,
        captured: int,
        build: Mapping[str, str],
    ) -> None:
        """Replace the file in one step: a reader sees the old numbers or the new ones.

        Raises:
            OSError: it cannot be written.
        """
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector

        class Numbers(Collector):
            def collect(self) -> Iterator[Metric]:
                yield from families(
                    totals, domain, attached=attached, dropped=dropped, captured=captured, build=build
                )

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Numbers())
        text = generate_latest(registry)
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with new.open("wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
            new.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise


def families(
    totals: Totals, domain: str, *, attached: bool, dropped: int, captured: int, build: Mapping[str, str]
) -> Iterator[Metric]:
    """Every row of `METRICS` with its values."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    makers = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    pauses = totals.pauses()
    single: Mapping[str, float] = {
        "xenintro_guest_paused_ratio": totals.recent.paused_ratio if attached else 0.0,
        "xenintro_deadline_missed": totals.deadline_missed,
        "xenintro_attached": int(attached),
        "xenintro_attachments": totals.attachments,
        "xenintro_capture_bytes": captured,
        "xenintro_tail_lines_dropped": dropped,
    }
    labelled: Mapping[str, Mapping[str, int] | Mapping[tuple[str, str], int]] = {
        "xenintro_events": {reason: histogram.count for reason, histogram in pauses.items()},
        "xenintro_answers": totals.answers,
        "xenintro_would_answers": totals.would,
        "xenintro_rule_matches": totals.matches,
        "xenintro_policy_errors": totals.errors,
    }
    for name, row in METRICS.items():
        family = makers[row.kind](name, row.help, labels=row.labels)
        if name in single:
            family.add_metric([domain], single[name])
        elif name in labelled:
            for label, value in labelled[name].items():
                labels = (label,) if isinstance(label, str) else label
                family.add_metric([domain, *labels], value)
        elif name == "xenintro_ring_occupancy":
            family.add_metric([domain], *_occupancy(totals.together))
        elif isinstance(family, HistogramMetricFamily):
            for reason, histogram in pauses.items():
                counts = zip(_BOUNDS, histogram.below(_BOUNDS), strict=True)
                buckets = [(repr(bound / 1e9), float(count)) for bound, count in counts]
                buckets.append(("+Inf", float(histogram.count)))
                family.add_metric([domain, reason], buckets, histogram.total / 1e9)
        else:
            family.add_metric([build.get(label, "") for label in row.labels], 1)
        yield family


def _occupancy(together: Mapping[int, int]) -> tuple[list[tuple[str, float]], float]:
    """Buckets and sum."""
    below = [sum(times for count, times in together.items() if count <= bound) for bound in _OCCUPIED]
    buckets = [(repr(float(bound)), float(times)) for bound, times in zip(_OCCUPIED, below, strict=True)]
    buckets.append(("+Inf", float(sum(together.values()))))
    return buckets, float(sum(count * times for count, times in together.items()))
