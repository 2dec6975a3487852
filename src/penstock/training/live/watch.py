"""How a loop is: judged, told in log lines and alerts, and as numbers for whoever asks."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from penstock.training.live import telling
from penstock.training.live.outgoing import SAMPLES, Outgoing, Parts
from penstock.training.live.quality import Quality
from penstock.training.live.settings import Document
from penstock.training.live.telling import Alerts, Kind

_log = logging.getLogger("penstock.online")


class Watch:
    """One thread tells; `prometheus` is asked by others. `whole_at`: monotonic, when the newest cut became whole."""

    def __init__(self, document: Document, parts: Parts, quality: Quality, alerts: Alerts) -> None:
        self.document, self.parts, self.quality, self.alerts = document, parts, quality, alerts
        self.outgoing: Outgoing | None = None
        self.whole_at = time.monotonic()
        self._lag_s, self._late = 0.0, False
        self._rate, self._told_at, self._told_samples = 0.0, time.monotonic(), parts.state.samples
        self._drifting: set[str] = set()
        self._bad, self._spoiled = parts.state.places[SAMPLES].counts["quarantined"], False

    def judge(self) -> None:
        """Let the gate see the metrics as they are."""
        gate = self.parts.gate
        if gate.judge(self.quality.values(), self.parts.state.samples):
            kind: Kind = "gate_open" if gate.open else "gate_shut"
            said = gate.why or "all metrics are in their bands again; publishing goes on"
            self.alerts.raise_(kind, said, samples=self.parts.state.samples)

    def learnt(self, emitted_ms: int) -> None:
        """The newest sample of a batch was made then; 0 where nobody says when."""
        self._lag_s = max(0.0, time.time() - emitted_ms / 1000) if emitted_ms else 0.0

    def due(self, now: float) -> bool:
        return now - self._told_at >= self.document.watch.tell_s

    def tell(self, now: float, *, idle: bool) -> None:
        """A line of how it is, and alerts of what is wrong. `idle`: nothing waits to be learnt from."""
        state, gate = self.parts.state, self.parts.gate
        self._rate = (state.samples - self._told_samples) / max(now - self._told_at, 1e-9)
        self._told_at, self._told_samples = now, state.samples
        if idle and not self._rate:
            self._lag_s = 0.0
        self.judge()
        if self.outgoing is not None:
            self.outgoing.prove()
        self._look_at_drift()
        found = self.quality.values()
        shown = ", ".join(f"{name} {found[name]:.4f}" for name in ("decayed_auc", "calibration") if found[name])
        counts = state.places[SAMPLES].counts
        aside = "".join(f", {counts[name]:,} {name}" for name in ("quarantined", "skipped") if counts[name])
        shut = "" if gate.open else f"; not published: {gate.why}"
        _log.info(
            "%s samples, %s a second, lag %.1f s, %s%s%s", f"{state.samples:,}", f"{self._rate:,.0f}", self._lag_s,
            shown or "no metrics yet", aside, shut,
        )  # fmt: skip
        self._look_at_quarantine(counts["quarantined"])
        late = self._lag_s > self.document.lag.most_s
        if late and not self._late:
            self.alerts.raise_("lag", f"samples are {self._lag_s:.0f} s old when they are learnt from")
        self._late = late

    def _look_at_quarantine(self, bad: int) -> None:
        """Once for records that come in a row, however many lines it takes."""
        new, self._bad = bad - self._bad, bad
        if new and not self._spoiled:
            said = f"{new:,} record{'s' if new > 1 else ''} put aside since the last line: they cannot be read"
            self.alerts.raise_("quarantine", said, records=new)
        self._spoiled = new > 0

    def _look_at_drift(self) -> None:
        limit = self.document.drift.alert
        over = {name: value for name, value in self.quality.drift.values().items() if value > limit}
        for name in over.keys() - self._drifting:
            self.alerts.raise_("drift", f"{name} is not what it was: PSI {over[name]:.2f}", of=name, psi=over[name])
        self._drifting = set(over)

    def summary(self) -> dict[str, Any]:
        """What was done so far: the command's JSON."""
        parts = self.parts
        counts = parts.state.places[SAMPLES].counts
        positions = {str(p): offset for p, offset in parts.state.places[SAMPLES].next.items()}
        publishing = self.outgoing.publishing if self.outgoing is not None else None
        return {
            "model": self.document.model.name, "generation": parts.lease.generation, "samples": parts.state.samples,
            "quarantined": counts["quarantined"], "skipped": counts["skipped"], "gaps": parts.state.gaps,
            "positions": positions, "rows": dict(parts.learner.sizes), "metrics": self.quality.values(),
            "published": publishing.summary() if publishing else None,
        }  # fmt: skip

    def prometheus(self) -> str:
        """Asked by another thread: numbers of about now."""
        parts = self.parts
        counts, found = parts.state.places[SAMPLES].counts, self.quality.values()
        values: dict[str, float | None] = {
            "samples_total": parts.state.samples, "skipped_total": counts["skipped"],
            "quarantined_total": counts["quarantined"], "left_out_total": parts.state.gaps,
            "samples_per_second": self._rate, "lag_seconds": self._lag_s,
            "auc": found["decayed_auc"], "calibration": found["calibration"], "gate_open": int(parts.gate.open),
            "generation": parts.lease.generation, "checkpoint_age_seconds": time.monotonic() - self.whole_at,
        }  # fmt: skip
        if self.outgoing is not None and self.outgoing.publishing is not None:
            values |= self.outgoing.publishing.counters()
        labelled: dict[str, Mapping[str, float]] = {
            "rows": parts.learner.sizes, "drift_psi": self.quality.drift.values(), "alerts_total": self.alerts.counts
        }  # fmt: skip
        return telling.text(self.document.model.writes, values, labelled)
