"""Raw MGET by redis-py and hiredis: the blobs that Penstock's store reads, as bytes, from the same server."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve

held: dict[str, Any] = {}


def setup(question: Mapping[str, Any]) -> str:
    held.update(question, client=redis.Redis(port=question["port"]), chance=np.random.default_rng(1))
    server = held["client"].info("server")["redis_version"]
    return f"redis-py {redis.__version__}, hiredis {version('hiredis')}, Redis {server}"


def keys(users: list[int]) -> list[bytes]:
    """entity || key || view, as `crates/penstock-views/src/keys.rs` has it."""
    entity = held["entity"].encode()
    head = bytes([len(entity)]) + entity
    parts = [head + bytes([len(str(user))]) + str(user).encode() for user in users]
    return [part + view.encode() for part in parts for view in held["views"]]


def answer(times: int = 0, check: list[int] | None = None) -> Mapping[str, Any]:
    client = held["client"]
    if check is not None:
        return {"lengths": [len(blob) for blob in client.mget(keys(check))]}
    asks = [keys(held["chance"].integers(0, held["entities"], 100).tolist()) for _ in range(times)]
    spent = []
    for ask in asks:
        started = time.perf_counter()
        client.mget(ask)
        spent.append((time.perf_counter() - started) * 1e3)
    return {"redis_p50": statistics.median(spent), "redis_p99": float(np.quantile(spent, 0.99))}


if __name__ == "__main__":
    serve(setup, answer)
