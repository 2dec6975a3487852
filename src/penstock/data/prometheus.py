"""Metrics of a process that runs for weeks: Prometheus' text format 0.0.4, and the port that serves it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

from penstock.errors import RequestError

#: A value with its labels.
Sample = tuple[Mapping[str, str], float]


def text(prefix: str, described: Mapping[str, str], values: Mapping[str, Sequence[Sample]]) -> str:
    """The metrics of `described` (name without prefix -> what it is) that have values, in that order.

    Names that end in `_total` are counters, the others gauges.
    """
    lines = []
    for name, help_ in described.items():
        if given := values.get(name):
            full, kind = f"{prefix}_{name}", "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {full} {help_}", f"# TYPE {full} {kind}"]
            lines += [f"{full}{_labels(labels)} {value:.12g}" for labels, value in given]
    return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{told}}}" if told else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class MetricsPort:
    """`GET /metrics` on HOST:PORT in a thread of its own; port 0 takes a free one. `address` is where.

    The address is taken when this is made, and answered from when `serve` is called; who asks earlier waits.
    """

    def __init__(self, listen: str) -> None:
        """Raises `RequestError` (DATA025) where the address cannot be had."""
        host, _, port = listen.rpartition(":")
        bare = host.strip("[]")
        try:
            self._server = (_Server6 if ":" in bare else _Server)((bare, int(port)), BaseHTTPRequestHandler)
        except (OSError, OverflowError, ValueError) as error:
            said = str(getattr(error, "strerror", None) or error)
            message = f"metrics cannot be served on {listen}: {said[:1].lower()}{said[1:]}"
            raise RequestError(message, "another HOST:PORT; port 0 takes a free one", "DATA025") from None
        self.address = f"{host}:{self._server.server_port}"
        self._thread: Thread | None = None

    def serve(self, read: Callable[[], str]) -> None:
        """Answer with what `read` gives, which is called by other threads."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.partition("?")[0] == "/metrics"
                body = read().encode() if found else b"GET /metrics\n"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing: it is asked every few seconds."""

        self._server.RequestHandlerClass = Handler
        self._thread = Thread(target=self._server.serve_forever, name="penstock-metrics", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
