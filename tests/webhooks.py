"""Whom alerts are sent to: keeps what it hears."""

from __future__ import annotations

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Webhook:
    """A server on a free port; `address` is what settings name. `heard`: what came, as it came.

    `metrics`: HOST:PORT of who sends. With it, each that is heard has the sender's metrics of that moment as "metrics":
    a process that ends tells of its end, and answers meanwhile.
    """

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.metrics = ""
        own = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if own.metrics:
                    with urllib.request.urlopen(f"http://{own.metrics}/metrics", timeout=5) as reply:
                        told["metrics"] = reply.read().decode()
                own.heard.append(told)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def of(self, alert: str) -> list[dict[str, Any]]:
        return [told for told in self.heard if told["alert"] == alert]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
