"""Requests as each server takes them, whole HTTP messages, and the scores in their replies.

Two dialects: `v2` is the Open Inference Protocol; `plain` is what one writes by hand, {"ids", "dense"} -> {"score"} or
the bytes of both arrays one after the other -> the bytes of the scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DATATYPES = {"int64": "INT64", "float32": "FP32", "float64": "FP64", "object": "BYTES"}


@dataclass(frozen=True)
class Wire:
    """`paths`: form (json, binary) -> where it goes; a server has the forms that stand here. `score`: its output."""

    dialect: str
    paths: Mapping[str, str]
    score: str = "score"

    def request(self, form: str, tensors: Mapping[str, Any]) -> bytes:
        """`tensors`: by the names that the server has for them."""
        body, headers = _v2(tensors, form, self.score) if self.dialect == "v2" else _plain(tensors, form)
        kind = "application/json" if form == "json" else "application/octet-stream"
        lines = [f"POST {self.paths[form]} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}", *headers]
        return ("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n").encode() + body

    def scores(self, form: str, headers: Mapping[str, str], body: bytes) -> Any:
        if self.dialect == "plain":
            return np.frombuffer(body, np.float32) if form == "binary" else np.array(json.loads(body)["score"])
        length = headers.get("inference-header-content-length")
        reply = json.loads(body[: int(length)] if length else body)
        output = next(output for output in reply["outputs"] if output["name"] == self.score)
        if length:
            return np.frombuffer(body[int(length) :], np.float32)
        return np.array(output["data"]).reshape(-1)


def _plain(tensors: Mapping[str, Any], form: str) -> tuple[bytes, list[str]]:
    if form == "binary":
        return b"".join(array.tobytes() for array in tensors.values()), []
    return _json({name: array.tolist() for name, array in tensors.items()}), []


def _v2(tensors: Mapping[str, Any], form: str, score: str) -> tuple[bytes, list[str]]:
    inputs, tail = [], b""
    for name, array in tensors.items():
        given: dict[str, Any] = {
            "name": name,
            "datatype": DATATYPES[array.dtype.name],
            "shape": list(array.shape),
        }
        if form == "binary":
            raw = _bytes(array) if array.dtype == object else array.tobytes()
            given["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            given["data"] = array.reshape(-1).tolist()
        inputs.append(given)
    binary = form == "binary"
    head = _json({"inputs": inputs, "outputs": [{"name": score, "parameters": {"binary_data": binary}}]})
    return head + tail, [f"Inference-Header-Content-Length: {len(head)}"] if binary else []


def _bytes(array: Any) -> bytes:
    """BYTES: each value after its length, u32 little-endian."""
    values = [value.encode() for value in array.reshape(-1)]
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
