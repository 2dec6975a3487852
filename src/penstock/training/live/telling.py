"""What operators see: log lines, alerts (log, metric, webhook), and metrics as Prometheus reads them."""

from __future__ import annotations

import http.server
import json
import logging
import queue
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

_log = logging.getLogger("penstock.online")
WEBHOOK_S = 5.0
#: Alerts that wait for a webhook which does not answer; more are only logged.
WAITING = 100


class Alerts:
    """Each alert is logged, counted by kind, and sent to the webhook by a thread of its own: nobody waits for it."""

    def __init__(self, model: str, webhook: str) -> None:
        self.counts: dict[str, int] = {}
        self._model, self._webhook = model, webhook
        self._waiting: queue.Queue[bytes] = queue.Queue(WAITING)
        if webhook:
            threading.Thread(target=self._send, name="penstock-alerts", daemon=True).start()

    def raise_(self, kind: str, said: str, **facts: Any) -> None:
        """`kind`: gate_shut, gate_open, drift, lag, quarantine, fenced."""
        _log.warning("ALERT %s: %s", kind, said)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self._webhook:
            told = {"model": self._model, "alert": kind, "message": said, "time_ms": int(time.time() * 1000), **facts}
            try:
                self._waiting.put_nowait(json.dumps(told).encode())
            except queue.Full:
                _log.warning("the webhook does not keep up; this alert is not sent")

    def close(self) -> None:
        """Give what waits a moment."""
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


class MetricsPort:
    """GET /metrics on a loopback address. `read` gives the text; port 0 takes a free one (`address`)."""

    def __init__(self, listen: str, read: Callable[[], str]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.partition("?")[0] == "/metrics"
                body = read().encode() if found else b"GET /metrics\n"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Scrapes are no news."""

        host, _, port = listen.rpartition(":")
        self._server = http.server.ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
        self.address = f"{host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="penstock-metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


#: name -> (type, help)
METRICS = {
    "samples_total": ("counter", "Samples learnt from."),
    "skipped_total": ("counter", "Samples that the lag policy left out."),
    "quarantined_total": ("counter", "Records that could not be read, put aside."),
    "samples_per_second": ("gauge", "Samples learnt from, lately."),
    "lag_seconds": ("gauge", "Age of the newest sample that was learnt from; 0 where nothing waits."),
    "auc": ("gauge", "AUC of scores made before learning, decayed."),
    "calibration": ("gauge", "Expected positives for each that came, decayed."),
    "gate_open": ("gauge", "Whether what is learnt is published: 1, or 0."),
    "generation": ("gauge", "The generation that this trainer holds."),
    "sequence": ("gauge", "The last delta of the chain."),
    "published_rows_total": ("counter", "Rows published, tombstones included."),
    "published_bytes_total": ("counter", "Bytes published."),
    "checkpoint_age_seconds": ("gauge", "Since the newest checkpoint was whole."),
    "rows": ("gauge", "Rows of a table."),
    "drift_psi": ("gauge", "Population stability index, by what it is of."),
    "alerts_total": ("counter", "Alerts, by kind."),
}


def prometheus(model: str, values: Mapping[str, float | None], labelled: Mapping[str, Mapping[str, float]]) -> str:
    """Prometheus' text format 0.0.4. `labelled`: metric -> (what it is of -> value)."""
    lines = []
    for name, (kind, help_) in METRICS.items():
        full = f"penstock_online_{name}"
        head = [f"# HELP {full} {help_}", f"# TYPE {full} {kind}"]
        if name in labelled:
            own = [f'{full}{{model="{model}",of="{_escaped(of)}"}} {value:g}' for of, value in labelled[name].items()]
        else:
            value = values.get(name)
            own = [] if value is None else [f'{full}{{model="{model}"}} {value!r}']
        lines += [*head, *own] if own else []
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
