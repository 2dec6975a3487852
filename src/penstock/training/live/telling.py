"""What operators see: alerts (log, metric, webhook), and metrics as Prometheus reads them."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import urllib.request
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from penstock.data import prometheus
from penstock.data.prometheus import Sample
from penstock.registry.chain import Fenced
from penstock.registry.faults import Superseded

_log = logging.getLogger("penstock.online")
WEBHOOK_S = 5.0
#: Alerts that wait for a webhook which does not answer; more are only logged.
WAITING = 100


#: What an alert is of (docs/operating-the-loop.md says what to do).
Kind = Literal["gate_shut", "gate_open", "lag", "drift", "quarantine", "lost", "fenced", "failed"]


class Alerts:
    """Each alert is logged, counted by kind, and sent to the webhook by a thread of its own: nobody waits for it.

    What ends the loop, other than being told to, is an alert as well.
    """

    def __init__(self, model: str, webhook: str) -> None:
        self.counts: dict[str, int] = {}
        self._model, self._webhook = model, webhook
        self._waiting: queue.Queue[bytes] = queue.Queue(WAITING)
        if webhook:
            threading.Thread(target=self._send, name="penstock-alerts", daemon=True).start()

    def raise_(self, kind: Kind, said: str, **facts: Any) -> None:
        _log.warning("ALERT %s: %s", kind, said)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self._webhook:
            told = {"model": self._model, "alert": kind, "message": said, "time_ms": int(time.time() * 1000), **facts}
            try:
                self._waiting.put_nowait(json.dumps(told).encode())
            except queue.Full:
                _log.warning("the webhook does not keep up; this alert is not sent")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell of what ended the loop, and give what waits a moment."""
        if isinstance(error, Exception):
            over = isinstance(error, Superseded | Fenced)  # by the registry, or by what the chain's topic holds
            self.raise_("fenced" if over else "failed", str(error).partition("\n")[0])
        deadline = time.monotonic() + WEBHOOK_S
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)

    def _send(self) -> None:
        while True:
            body = self._waiting.get()
            request = urllib.request.Request(self._webhook, body, {"Content-Type": "application/json"})  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=WEBHOOK_S):  # noqa: S310  http and https alone are taken
                    pass
            except OSError as error:
                _log.warning("the webhook %s does not take an alert: %s", self._webhook, error)
            self._waiting.task_done()


PREFIX = "penstock_online"
#: name -> what it is
METRICS = {
    "samples_total": "Samples learnt from.",
    "skipped_total": "Samples that the lag policy left out.",
    "quarantined_total": "Records that could not be read, put aside.",
    "left_out_total": "Records that rollbacks left out, or that were trimmed or damaged before they were read.",
    "samples_per_second": "Samples learnt from, lately.",
    "lag_seconds": "Age of the newest sample that was learnt from; 0 where nothing waits.",
    "auc": "AUC of scores made before learning, decayed.",
    "calibration": "Expected positives for each that came, decayed.",
    "gate_open": "Whether what is learnt is published: 1, or 0.",
    "generation": "The generation that this trainer holds.",
    "sequence": "The last delta of the chain.",
    "published_rows_total": "Rows published, tombstones included.",
    "published_bytes_total": "Bytes published.",
    "checkpoint_age_seconds": "Since the newest checkpoint was whole.",
    "rows": "Rows of a table.",
    "drift_psi": "Population stability index, by what it is of.",
    "alerts_total": "Alerts, by kind.",
}


def text(model: str, values: Mapping[str, float | None], labelled: Mapping[str, Mapping[str, float]]) -> str:
    """In Prometheus' format. `labelled`: metric -> (what it is of -> value)."""
    own = {"model": model}
    given: dict[str, list[Sample]] = {name: [(own, value)] for name, value in values.items() if value is not None}
    given |= {name: [({**own, "of": of}, value) for of, value in each.items()] for name, each in labelled.items()}
    return prometheus.text(PREFIX, METRICS, given)
