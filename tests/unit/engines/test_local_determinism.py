"""The same rows, order and bits at any number of threads: two processes, one thread and four, every operator."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

ROWS = 60_000

PROCESSES = [
    {"name": "kept", "type": "filter", "from": "clicks", "where": "price is null or price > 0.05"},
    {"name": "few", "type": "sample", "from": "kept", "rate": "0.7", "seed": "5", "weight": "weight"},
    {"name": "many", "type": "sample", "from": "few", "rate": "1.5", "where": "user > 100"},
    {"name": "parts", "type": "split", "from": "many", "by": "time", "column": "ts", "at": "0.6 0.2"},
    {"name": "hashed", "type": "split", "from": "kept", "by": "hash", "column": "user", "at": "0.5"},
    {"name": "random", "type": "split", "from": "kept", "by": "random", "at": "0.5", "seed": "3"},
    {"name": "joined", "type": "join", "from": "parts.train users", "on": "user", "how": "full"},
    {"name": "near", "type": "join", "from": "parts.test users", "on": "ts", "how": "asof", "by": "user"},
    {"name": "both", "type": "union", "from": "hashed.train random.test"},
    {"name": "sums", "type": "aggregate", "from": "both", "by": "city", "columns": "sum(w) as s, stddev(price) as d"},
    {"name": "counts", "type": "aggregate", "from": "both", "by": "user", "columns": "count(*) as n, max(ts) as t"},
    {"name": "all", "type": "aggregate", "from": "kept", "columns": "avg(price) as m, sum(w * price) as s"},
    {"name": "tidy", "type": "clean", "from": "joined", "fill": "price=0", "dedup": "city user", "keep": "last"},
    {"name": "ranked", "type": "sort", "from": "joined", "by": "price desc, city"},
    {"name": "looks", "type": "stats", "from": "kept", "label": "label"},
    {"name": "top", "type": "sql", "from": "kept users", "query":
        "select u.age, sum(k.price) as s, count(*) as n from kept k join users u on k.user = u.user "
        "group by u.age order by s desc, u.age limit 50"},
]  # fmt: skip
OUTPUTS = ["many", "parts.train", "parts.valid", "hashed.test", "random.train", "joined", "near", "both", "sums",
           "counts", "all", "tidy", "ranked", "looks", "top"]  # fmt: skip

CHILD = """
import json, sys
from penstock.engines.local import LocalEngine
from penstock.engines.spec import NodeSpec
class Silent:
    def progress(self, *a, **k): pass
    def log(self, m): pass
LocalEngine().run(NodeSpec.model_validate_json(open(sys.argv[1]).read()), Silent())
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(7)
    clicks = pl.DataFrame(
        {
            "ts": 1_700_000_000 + rng.integers(0, 50_000, ROWS),
            "user": rng.zipf(1.3, ROWS) % 2_000,
            "city": [f"c{v}" if v else None for v in rng.integers(0, 40, ROWS)],
            "price": [None if v < 0.02 else float(v) for v in rng.random(ROWS)],
            "w": rng.standard_normal(ROWS) * 10.0 ** rng.integers(-8, 8, ROWS),
            "label": rng.integers(0, 2, ROWS),
        }
    )
    clicks.write_parquet(folder / "clicks.parquet", row_group_size=7_000)
    users = pl.DataFrame({"user": rng.integers(0, 2_500, 3_000), "age": rng.integers(18, 80, 3_000)})
    users = users.with_columns(ts=pl.lit(1_700_000_000) + rng.integers(0, 50_000, 3_000))
    users.write_parquet(folder / "users.parquet", row_group_size=500)
    return folder


def outputs(tables: Path, folder: Path, threads: int) -> dict[str, str]:
    """The hash of every output of a node that uses every operator."""
    steps: list[dict[str, Any]] = [
        {"kind": "input", "name": name, "type": "parquet", "attrs": {"path": str(tables / f"{name}.parquet")}}
        for name in ("clicks", "users")
    ]
    for process in PROCESSES:
        attrs = {key: value for key, value in process.items() if key not in ("name", "type")}
        steps.append({"kind": "process", "name": process["name"], "type": process["type"], "attrs": attrs})
    for reference in OUTPUTS:
        attrs = {"from": reference, "path": str(folder / f"{reference}.parquet")}
        steps.append({"kind": "output", "name": f"to_{reference.replace('.', '_')}", "type": "parquet", "attrs": attrs})
    folder.mkdir()
    spec = {"run": "r", "node": "n", "engine": "local", "folder": str(folder / "store"), "steps": steps}
    (folder / "spec.json").write_text(json.dumps(spec))
    environment = {**os.environ, "POLARS_MAX_THREADS": str(threads)}
    command = [sys.executable, "-c", CHILD, str(folder / "spec.json")]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return {reference: _digest(folder / f"{reference}.parquet") for reference in OUTPUTS}


def _digest(file: Path) -> str:
    frame = pl.read_parquet(file).rechunk()
    assert frame.height > 0
    return hashlib.sha256(frame.write_ipc(None, compat_level=pl.CompatLevel.oldest()).getvalue()).hexdigest()


def test_every_operator_gives_the_same_bits_with_one_thread_and_with_four(tables: Path, tmp_path: Path) -> None:
    one, four = outputs(tables, tmp_path / "one", 1), outputs(tables, tmp_path / "four", 4)
    assert [name for name in OUTPUTS if one[name] != four[name]] == []
