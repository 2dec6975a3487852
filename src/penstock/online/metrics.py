"""What a join says of itself: Prometheus' text, and a line for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from penstock.data import prometheus
from penstock.data.prometheus import Sample

PREFIX = "penstock_join"
#: name -> what it is
METRICS = {
    "up": "1 while it joins; 0 while it waits for a topic or a disk.",
    "events_total": "Records and samples since the state was new, by what became of them.",
    "lag_records": "Records of a partition that are not joined yet.",
    "clock_behind_seconds": "How far a partition's clock is behind this machine's; negative: ahead of it.",
    "frontier_behind_seconds": "How far the samples are behind this machine's clock.",
    "open_impressions": "Impressions whose windows are not over.",
    "waiting_feedback": "Ids whose feedback waits for an impression.",
    "state_bytes": "Size of the state's file.",
    "skipped_total": "Samples that were there already after a restart.",
    "failures_total": "Times that a topic or a disk failed and it tried again.",
}


def text(status: Mapping[str, Any]) -> str:
    """The status of a `Runner` in Prometheus' text format."""
    now_ms = time.time() * 1000
    values: dict[str, list[Sample]] = {
        "up": [({}, float(status["state"] == "joining"))],
        "events_total": [({"kind": kind}, count) for kind, count in sorted(status.get("counts", {}).items())],
        "lag_records": [(_where(where), lag) for where, lag in status.get("lags", {}).items()],
        "clock_behind_seconds": [
            (_where(where), (now_ms - clock) / 1000)
            for where, clock in status.get("clocks_ms", {}).items()
            if clock >= 0
        ],
        "skipped_total": [({}, status.get("skipped", 0))],
        "failures_total": [({}, status.get("failures", 0))],
    }
    for name, key in (("open_impressions", "open"), ("waiting_feedback", "waiting"), ("state_bytes", "bytes")):
        if key in status:
            values[name] = [({}, status[key])]
    if status.get("frontier_ms", -1) >= 0:
        values["frontier_behind_seconds"] = [({}, (now_ms - status["frontier_ms"]) / 1000)]
    return prometheus.text(PREFIX, METRICS, values)


def _where(where: str) -> dict[str, str]:
    source, _, partition = where.partition("/")
    return {"topic": source, "partition": partition}


def line(status: Mapping[str, Any]) -> str:
    """One line for people."""
    counts, lags = status.get("counts", {}), status.get("lags", {})
    if status["state"] != "joining":
        return f"{status['state']}: {status.get('why', '')}"
    frontier = status["frontier_ms"]
    behind = (
        f"{time.time() - frontier / 1000:,.1f} s behind" if frontier >= 0 else "waiting for every partition to speak"
    )
    return (
        f"{counts.get('impressions', 0):,} impressions, {counts.get('feedback', 0):,} feedback, "
        f"{counts.get('samples', 0):,} samples; lag {sum(lags.values()):,} records, {behind}; "
        f"{status['open']:,} open, {counts.get('poison', 0):,} quarantined"
    )
