"""Requests that no server should take, as HTTP messages, and the status that the contract gives each."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

INFER = "/v2/models/judged/infer"
LENGTH = "Inference-Header-Content-Length"
ROWS = 2
GOOD: dict[str, tuple[str, list[Any]]] = {
    "user": ("INT64", [1, 2]),
    "city": ("BYTES", ["Lima", "Oslo"]),
    "price": ("FP64", [1.5, 2.5]),
    "member": ("BOOL", [True, False]),
    "at": ("INT64", [0, 1]),
    "tags": ("BYTES", ["[]", '["t1"]']),
}


@dataclass(frozen=True)
class Fault:
    """`status`: the contract's. `triton`: a real Triton's class of status where it is another, on purpose (`why`)."""

    name: str
    body: bytes
    status: int
    path: str = INFER
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    triton: int = 0
    why: str = ""


def tensor(column: str, **changed: Any) -> dict[str, Any]:
    kind, data = GOOD[column]
    return {"name": column, "datatype": kind, "shape": [ROWS, 1], "data": data, **changed}


def body(*changed: dict[str, Any], **more: Any) -> bytes:
    """A good request in which tensors of these names stand instead."""
    inputs = {name: tensor(name) for name in GOOD}
    for each in changed:
        inputs[each.get("name", "user") if each.get("name") in inputs else "user"] = each
    return json.dumps({"inputs": list(inputs.values()), **more}).encode()


def binary(size: int, tail: bytes) -> tuple[bytes, dict[str, str]]:
    """The column `user` as `size` bytes of the tail."""
    user = {"name": "user", "datatype": "INT64", "shape": [ROWS, 1], "parameters": {"binary_data_size": size}}
    head = body(user)
    return head + tail, {LENGTH: str(len(head))}


def faults() -> Iterator[Fault]:
    lenient = "Triton takes what it can make of it; the contract asks for 400 and the input's name"
    told = "Triton tells a client's fault as its own; the contract never does"

    yield Fault("good", body(), 200)
    yield Fault("empty body", b"", 400)
    yield Fault("not json", b"{", 400, triton=500, why=told)
    yield Fault("an array", b"[1]", 400, triton=500, why=told)
    yield Fault("no inputs", b"{}", 400, triton=500, why=told)
    yield Fault("inputs of no tensors", b'{"inputs": []}', 400)
    yield Fault("inputs that are no list", b'{"inputs": 3}', 400, triton=500, why=told)
    yield Fault("deep json", b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400)
    yield Fault("invalid utf-8", body().replace(b"Lima", b"\xff\xfe"), 400, triton=200, why=lenient)
    yield Fault(
        "a number out of range",
        body(tensor("user", data=[1e400, 2])).replace(b"Infinity", b"1e400"),
        400,
        triton=500,
        why=told,
    )
    yield Fault("wrong datatype", body(tensor("user", datatype="FP32", data=[1.0, 2.0])), 400)
    yield Fault("unknown datatype", body(tensor("user", datatype="INT65")), 400)
    yield Fault("text for a number", body(tensor("user", data=["a", "b"])), 400, triton=500, why=told)
    yield Fault("a fraction for an integer", body(tensor("user", data=[1.5, 2])), 400, triton=500, why=told)
    yield Fault("too few values", body(tensor("user", data=[1])), 400, triton=500, why=told)
    yield Fault("too many values", body(tensor("user", data=[1, 2, 3])), 400, triton=500, why=told)
    yield Fault("wrong rank", body(tensor("user", shape=[ROWS, 1, 1])), 400)
    yield Fault("wrong width", body(tensor("user", shape=[ROWS, 2], data=[1, 2, 3, 4])), 400)
    yield Fault("negative shape", body(tensor("user", shape=[-1, 1])), 400, triton=500, why=told)
    yield Fault("a shape beyond 64 bits", body(tensor("user", shape=[2**40, 2**40])), 413)
    yield Fault("rows that do not agree", body(tensor("user", shape=[1, 1], data=[1])), 400)
    yield Fault("an unknown input", body(tensor("user", name="nobody")), 400)
    yield Fault("no name", body({k: v for k, v in tensor("user").items() if k != "name"}), 400, triton=500, why=told)
    yield Fault("no shape", body({k: v for k, v in tensor("user").items() if k != "shape"}), 400, triton=500, why=told)
    yield Fault("no data", body({k: v for k, v in tensor("user").items() if k != "data"}), 400)
    yield Fault("an unknown output", body(outputs=[{"name": "nothing"}]), 400)
    shared = tensor("user", parameters={"shared_memory_region": "m", "shared_memory_byte_size": 16})
    del shared["data"]
    unserved = "shared memory is not served here: 501"
    yield Fault("shared memory input", body(shared), 501, triton=400, why=unserved)

    whole = struct.pack("<2q", 1, 2)
    for name, size, tail, triton in (
        ("truncated tail", 16, whole[:9], 0),
        ("no tail", 16, b"", 0),
        ("a tail too long", 16, whole + b"x", 0),
        ("a size that lies", 8, whole, 0),
        ("a size beyond the tail", 1 << 40, whole, 0),
        ("a negative size", -1, whole, 500),
    ):
        data, headers = binary(size, tail)
        yield Fault(name, data, 400, headers=headers, triton=triton, why=told if triton else "")
    data, headers = binary(16, whole)
    yield Fault("good binary", data, 200, headers=headers)
    yield Fault("a header beyond the body", data, 400, headers={LENGTH: str(len(data) + 1)})
    yield Fault("a header that cuts", data, 400, headers={LENGTH: "5"}, triton=500, why=told)
    yield Fault("a header of no number", data, 400, headers={LENGTH: "many"})
    yield Fault("a negative header", data, 400, headers={LENGTH: "-4"})
    yield Fault("no gzip", b"not gzip", 400, headers={"Content-Encoding": "gzip"})
    yield Fault(
        "cut gzip", gzip.compress(body())[:-12], 400, headers={"Content-Encoding": "gzip"}, triton=500, why=told
    )
    uncoded = "Triton says 501; to the contract it is a request that cannot be read"
    yield Fault("unknown coding", body(), 400, headers={"Content-Encoding": "rot13"}, triton=501, why=uncoded)

    yield Fault("unknown model", body(), 404, "/v2/models/nobody/infer")
    yield Fault("unknown version", body(), 404, "/v2/models/judged/versions/77/infer")
    yield Fault("a version of no number", body(), 404, "/v2/models/judged/versions/x/infer")
    yield Fault("metadata of an unknown model", b"", 404, "/v2/models/nobody", method="GET")
    yield Fault("configuration of an unknown model", b"", 404, "/v2/models/nobody/config", method="GET")
    yield Fault("statistics of an unknown model", b"", 404, "/v2/models/nobody/stats", method="GET")
    yield Fault("an unknown path", b"", 404, "/v2/modles", method="GET")
    yield Fault("another method", b"", 405, INFER, method="GET")
