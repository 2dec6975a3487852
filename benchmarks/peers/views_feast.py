"""Feast's online stores, SQLite and Redis, with the values that `views.py` gives ours."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ["FEAST_USAGE"] = "False"
import feast
import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64

STORES: dict[str, FeatureStore] = {}
STATE: dict[str, Any] = {}


def setup(question: Mapping[str, Any]) -> str:
    folder, entities, names = Path(question["folder"]), question["entities"], question["views"]
    folder.mkdir(parents=True)
    users = np.arange(entities)
    now = datetime.now(UTC)
    stores = {
        "embedded": {"type": "sqlite", "path": str(folder / "online.db")},
        "redis": {"type": "redis", "connection_string": f"127.0.0.1:{question['port']},db=3"},
    }
    for case, online in stores.items():
        store = FeatureStore(config=RepoConfig(
            project=f"bench_{case}", provider="local", registry=str(folder / f"{case}.registry"), online_store=online,
            offline_store={"type": "file"}, entity_key_serialization_version=3,
        ))  # fmt: skip
        user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
        objects: list[Any] = [user]
        for name in names:
            path = folder / f"{name}.parquet"
            frame = pd.DataFrame({"user": users, f"{name}_a": users, f"{name}_b": users / 2, f"{name}_n": 1, "t": now})
            frame.to_parquet(path)
            fields = [Field(name=f"{name}_a", dtype=Int64), Field(name=f"{name}_b", dtype=Float64)]
            fields.append(Field(name=f"{name}_n", dtype=Int64))
            source = FileSource(path=str(path), timestamp_field="t")
            objects.append(FeatureView(name=name, entities=[user], schema=fields, source=source, ttl=timedelta(days=1)))
        store.apply(objects)
        for name in names:
            store.write_to_online_store(name, df=pd.read_parquet(folder / f"{name}.parquet"))
        STORES[case] = store
    STATE.update(entities=entities, features=[f"{n}:{n}_{c}" for n in names for c in "abn"], first=names[0])
    return str(feast.__version__)


def answer(asks: int = 0, check: list[int] | None = None) -> Mapping[str, Any]:
    if check is not None:
        first = STATE["first"]
        for store in STORES.values():
            found = _ask(store, check).to_dict()
        return {"values": {column: found[f"{first}_{column}"] for column in "abn"}}
    cases = {}
    for case, store in STORES.items():
        seconds = []
        for _ in range(asks):
            users = random.sample(range(STATE["entities"]), 100)
            started = time.perf_counter()
            _ask(store, users)
            seconds.append((time.perf_counter() - started) * 1e3)
        cases |= {f"{case}_p50": statistics.median(seconds), f"{case}_p99": float(np.quantile(seconds, 0.99))}
    return cases


def _ask(store: FeatureStore, users: list[int]) -> Any:
    return store.get_online_features(STATE["features"], [{"user": user} for user in users])


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from harness import serve

    serve(setup, answer)
