"""A client of the serving host: columns in, scores out, over HTTP with binary tensors. Any v2 client does as well.

client = Client("http://127.0.0.1:8500")
scores = client.infer("ctr", frame).outputs["score"]
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.errors import PenstockError, RequestError
from penstock.serving import wire
from penstock.serving.tensors import Declared, tensors_of

#: What is worth trying again: scoring changes nothing.
TRY_AGAIN = (429, 502, 503)
#: How long a model's metadata is believed; an alias may move.
FRESH_S = 30.0


class ServingError(PenstockError):
    """The host refused a request, or could not be reached. `status`: HTTP's, 0 where there was no reply."""

    def __init__(self, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """`outputs` by name, in their shapes; `bundle`: the digest of what answered. `position`: of a version that follows
    a chain (docs/live-parameters.md), the generation and sequence that all rows were scored at; else None."""

    outputs: Mapping[str, npt.NDArray[Any]]
    model: str
    version: str
    bundle: str
    request_id: str
    position: tuple[int, int] | None = None


class Client:
    """Threads may share it: each has a connection of its own.

    `url`: http:// or https:// with the port; `token`: sent as `Authorization: Bearer`. A request that meets a busy or
    restarting host is tried again, `retries` times at most and never past `timeout_s`.
    """

    def __init__(
        self, url: str, *, token: str = "", timeout_s: float = 5.0, retries: int = 2,
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(f"'{url}' is not an address of a host", "http://127.0.0.1:8500, say")
        self.url, self.timeout_s, self.retries = url, timeout_s, retries
        self._parts, self._tls = parts, tls
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._local = threading.local()
        self._declared: dict[str, tuple[float, list[Declared]]] = {}

    def __repr__(self) -> str:
        return f"Client({self.url})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it asks ---

    def ready(self, model: str = "", version: str = "") -> bool:
        """Whether the host (or a model, or a version of it) takes requests; False too where nobody answers."""
        path = f"{_path(model, version)}/ready" if model else "/v2/health/ready"
        try:
            status, _, _ = self._once("GET", path, b"", {}, self.timeout_s)
        except ServingError:
            return False
        return status == 200

    def metadata(self, model: str = "", version: str = "") -> dict[str, Any]:
        """What the host says of itself, or of a model: names, datatypes and shapes of inputs and outputs."""
        body, _ = self._ask("GET", _path(model, version) if model else "/v2", b"", {}, self.timeout_s)
        found: dict[str, Any] = json.loads(body)
        return found

    def infer(
        self,
        model: str,
        data: Any,
        *,
        version: str = "",
        broadcast: Sequence[str] = (),
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Reply:
        """Score rows. `data`: an Arrow table or batch, a Polars or pandas frame, or columns by name; nulls are nulls.

        Columns are sent as the types that the model declares; those that it does not read are left out. `broadcast`
        names columns of one row that stand for every row (`data` by name then).
        Raises `ServingError`; its `status` is HTTP's.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        inputs = self._inputs(model, version)
        tensors = [t for part in tables_of(data) for t in tensors_of(part, inputs)]
        if not tensors:
            names = ", ".join(name for name, *_ in inputs[:20])
            raise RequestError(f"none of the columns is an input of model '{model}'", f"its inputs are {names}")
        parameters: dict[str, Any] = {"timeout": int(timeout_s * 1e6)}
        if broadcast:
            parameters["broadcast"] = " ".join(broadcast)
        body, head_length = wire.encode(tensors, parameters, outputs, request_id)
        headers = {wire.HEADER: str(head_length), "Content-Type": "application/octet-stream"}
        if request_id:
            headers["x-request-id"] = request_id
        reply, got = self._ask("POST", f"{_path(model, version)}/infer", body, headers, timeout_s)
        length = got.get(wire.HEADER.lower())
        head, found = wire.decode(reply, int(length) if length else None)
        about = head.get("parameters", {})
        position = (int(about["generation"]), int(about["sequence"])) if "generation" in about else None
        bundle, request = str(about.get("bundle", "")), got.get("x-request-id", "")
        return Reply(found, head["model_name"], str(head.get("model_version", "")), bundle, request, position)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    # --- how it asks ---

    def _inputs(self, model: str, version: str) -> list[Declared]:
        key = f"{model}/{version}"
        known = self._declared.get(key)
        if known is None or time.monotonic() - known[0] > FRESH_S:
            said = self.metadata(model, version)["inputs"]
            known = (time.monotonic(), [(i["name"], i["datatype"], i["shape"]) for i in said])
            self._declared[key] = known
        return known[1]

    def _ask(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[bytes, Mapping[str, str]]:
        ends = time.monotonic() + timeout_s
        for attempt in range(self.retries + 1):
            left = max(0.001, ends - time.monotonic())
            fault, wait_s = None, 0.02 * 2**attempt * (1 + random.random())  # noqa: S311  spreads retries, nothing more
            try:
                status, got, reply = self._once(method, path, body, headers, left)
            except ServingError as error:
                fault = error
            else:
                if status == 200:
                    return reply, got
                fault = ServingError(_said(reply, status), status=status)
                if got.get("retry-after", "").isdigit():
                    wait_s = float(got["retry-after"])
            again = fault.status in (0, *TRY_AGAIN) and attempt < self.retries
            if not again or time.monotonic() + wait_s >= ends:
                raise fault
            time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _once(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = self._connection(timeout_s)
        try:
            connection.request(method, path, body or None, {**self._headers, **headers})
            reply = connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return reply.status, found, reply.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            said = str(error) or type(error).__name__
            hint = "is it running? `penstock serve CONFIG` prints its address"
            raise ServingError(f"{self.url} did not answer: {said}", hint) from None

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._parts.scheme == "https":
                found = http.client.HTTPSConnection(host, port, context=self._tls or ssl.create_default_context())
            else:
                found = http.client.HTTPConnection(host, port)
            self._local.connection = found
        found.timeout = timeout_s
        if found.sock is not None:
            found.sock.settimeout(timeout_s)
        return found


def _path(model: str, version: str) -> str:
    path = f"/v2/models/{urllib.parse.quote(model, safe='')}"
    return f"{path}/versions/{urllib.parse.quote(version, safe='')}" if version else path


def _said(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the host answered {status}"


def tables_of(data: Any) -> list[pa.Table]:
    """The columns as Arrow, tables of one length each: broadcast columns are shorter than the others."""
    if isinstance(data, pa.RecordBatch):
        return [pa.Table.from_batches([data])]
    if isinstance(data, pa.Table):
        return [data]
    if isinstance(data, Mapping):
        return [pa.table({name: _column(values)}) for name, values in data.items()]
    if hasattr(data, "to_arrow"):
        return [data.to_arrow()]
    if hasattr(data, "columns") and hasattr(data, "to_dict"):
        return [pa.Table.from_pandas(data, preserve_index=False)]
    raise RequestError(
        f"rows come as a frame, an Arrow table or columns by name, not as {type(data).__name__}",
        'client.infer("ctr", {"user": [1, 2], "city": ["oslo", None]})',
    )


def _column(values: Any) -> Any:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return pa.array(values.tolist())
    if hasattr(values, "to_arrow"):
        return values.to_arrow()
    return pa.array(values)
