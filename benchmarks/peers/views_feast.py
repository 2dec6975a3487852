"""Feast's online stores, SQLite and Redis, with the values that `views.py` gives ours."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast
import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64, String

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve

TYPES = {"city": String, "price": Float64, "n": Int64, "sum": Float64, "mean": Float64}
stores: dict[str, FeatureStore] = {}
held: dict[str, Any] = {}


def setup(question: Mapping[str, Any]) -> str:
    folder, entities, names = Path(question["folder"]), question["feast_entities"], question["views"]
    folder.mkdir(parents=True)
    users, now = np.arange(entities), datetime.now(UTC)
    values = {output: np.resize(np.array(of), entities) for output, of in question["values"].items()}
    online = {
        "embedded": {"type": "sqlite", "path": str(folder / "online.db")},
        "redis": {"type": "redis", "connection_string": f"127.0.0.1:{question['port']},db=3"},
    }
    for case, kept in online.items():
        registry = {"path": str(folder / f"{case}.registry"), "cache_ttl_seconds": 0}  # cached for ever
        config = RepoConfig(
            project=f"bench_{case}", provider="local", registry=registry, online_store=kept,
            offline_store={"type": "file"}, entity_key_serialization_version=3,
        )  # fmt: skip
        stores[case] = store = FeatureStore(config=config)
        user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
        views = []
        for name in names:
            path = folder / f"{name}.parquet"
            frame = pd.DataFrame({"user": users, **{f"{name}_{o}": of for o, of in values.items()}, "t": now})
            frame.to_parquet(path)
            fields = [Field(name=f"{name}_{output}", dtype=type_) for output, type_ in TYPES.items()]
            source = FileSource(path=str(path), timestamp_field="t")
            views.append(FeatureView(name=name, entities=[user], schema=fields, source=source, ttl=timedelta(days=1)))
        store.apply([user, *views])
        for name in names:
            frame = pd.read_parquet(folder / f"{name}.parquet")
            for first in range(0, entities, 20_000):
                store.write_to_online_store(name, df=frame[first : first + 20_000])
    held.update(entities=entities, views=names, features=[f"{n}:{n}_{output}" for n in names for output in TYPES])
    return str(feast.__version__)


def ask(store: FeatureStore, users: list[int]) -> Any:
    return store.get_online_features(held["features"], {"user": users})


def answer(times: int = 0, check: list[int] | None = None) -> Mapping[str, Any]:
    if check is not None:
        told = {case: ask(store, check).to_dict() for case, store in stores.items()}
        return {
            case: {name: {output: said[f"{name}_{output}"] for output in TYPES} for name in held["views"]}
            for case, said in told.items()
        }
    found = {}
    for case, store in stores.items():
        spent = []
        for _ in range(times):
            users = random.choices(range(held["entities"]), k=100)
            started = time.perf_counter()
            ask(store, users)
            spent.append((time.perf_counter() - started) * 1e3)
        found |= {f"{case}_p50": statistics.median(spent), f"{case}_p99": float(np.quantile(spent, 0.99))}
    return found


if __name__ == "__main__":
    serve(setup, answer)
