"""What a join says of itself: Prometheus' text over HTTP, and a line for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

from penstock.errors import RequestError

_PREFIX = "penstock_join"
_HELP = {
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
    values: dict[str, dict[str, float]] = {
        "up": {"": float(status["state"] == "joining")},
        "events_total": {f'{{kind="{kind}"}}': count for kind, count in sorted(status.get("counts", {}).items())},
        "lag_records": {_where(where): lag for where, lag in status.get("lags", {}).items()},
        "clock_behind_seconds": {
            _where(where): (now_ms - clock) / 1000 for where, clock in status.get("clocks_ms", {}).items() if clock >= 0
        },
        "open_impressions": {"": status["open"]} if "open" in status else {},
        "waiting_feedback": {"": status["waiting"]} if "waiting" in status else {},
        "state_bytes": {"": status["bytes"]} if "bytes" in status else {},
        "skipped_total": {"": status.get("skipped", 0)},
        "failures_total": {"": status.get("failures", 0)},
    }
    if status.get("frontier_ms", -1) >= 0:
        values["frontier_behind_seconds"] = {"": (now_ms - status["frontier_ms"]) / 1000}
    lines = []
    for name, given in values.items():
        if given:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {_PREFIX}_{name} {_HELP[name]}", f"# TYPE {_PREFIX}_{name} {kind}"]
            lines += [f"{_PREFIX}_{name}{labels} {value:.12g}" for labels, value in given.items()]
    return "\n".join(lines) + "\n"


def _where(where: str) -> str:
    source, _, partition = where.partition("/")
    return f'{{topic="{source}",partition="{partition}"}}'


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


class Endpoint:
    """`GET /metrics` on HOST:PORT in a thread of its own; `address` is where."""

    def __init__(self, address: str, status: Callable[[], Mapping[str, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.partition("?")[0] == "/metrics"
                body = text(status()).encode() if found else b"GET /metrics\n"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing: it is asked every few seconds."""

        host, _, port = address.rpartition(":")
        try:
            self._server = ThreadingHTTPServer((host, int(port)), Handler)
        except (OSError, OverflowError) as error:
            raise RequestError(f"metrics = '{address}': {error}", "another HOST:PORT; port 0: a free one") from None
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, name="penstock-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
