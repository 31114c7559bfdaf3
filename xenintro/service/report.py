"""How the service is: for ``ctl status``, ``ctl stats`` and ``systemctl status``."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING, Any

from xenintro.units import format_ns
from xenintro.xen.domains import called

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenintro.service.service import Service


def status_text(service: Service) -> str:
    """One line."""
    if service.monitor is None:
        return f"waiting for {service.settings.name}"
    recent = service.totals.recent
    text = f"watching {called(service.monitor.info)}: {recent.rate:.0f}/s"
    if recent.p99_ns:
        text += f", p99 {format_ns(recent.p99_ns)}"
    return text + (", reload failed" if service.reload_error else "")


def status_of(service: Service) -> Mapping[str, Any]:
    """State, settings and rates."""
    monitor, totals = service.monitor, service.totals
    return {
        "v": 1,
        "service": service.settings.name,
        "state": "waiting" if monitor is None else "watching",
        "domid": monitor.info.domid if monitor else None,
        "domain": monitor.info.name if monitor else None,
        "pid": os.getpid(),
        "started": _when(service.started),
        "xen": service.version,
        "abi": monitor.interface.id if monitor else None,
        "mode": "enforce" if service.enforce else "observe",
        "traps": [trap.text for trap in service.settings.traps],
        "policies": list(service.policies.specs),
        "deadline_ns": round(service.settings.deadline * 1e9),
        "config": str(service.layers.path) if service.layers.path else None,
        "capture": str(service.capture.path) if service.capture.path else None,
        "capture_bytes": service.capture.size,
        "capture_error": service.capture.error,
        "reloaded": None if service.reloaded is None else _when(service.reloaded),
        "reload_error": service.reload_error,
        "attachments": totals.attachments,
        "events": totals.events,
        "rate": round(totals.recent.rate, 1),
        "p99_ns": totals.recent.p99_ns,
        "paused_ratio": round(totals.recent.paused_ratio, 6),
        "deadline_missed": totals.deadline_missed,
        "policy_errors": totals.policy_errors,
        "tails": service.control.tails,
        "tail_lines_dropped": service.control.dropped,
    }


def stats_of(service: Service) -> Mapping[str, Any]:
    """Counts and pauses since the service started."""
    totals = service.totals
    return {
        "v": 1,
        "service": service.settings.name,
        "events": totals.events,
        "reasons": {
            reason: {
                "count": pauses.count,
                "p50_ns": pauses.percentile(50),
                "p99_ns": pauses.percentile(99),
                "max_ns": pauses.max,
            }
            for reason, pauses in sorted(totals.pauses().items(), key=lambda item: -item[1].count)
        },
        "answers": dict(totals.answers),
        "would": dict(totals.would),
        "deadline_missed": totals.deadline_missed,
        "policy_errors": totals.policy_errors,
        "attachments": totals.attachments,
    }


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
