"""What a loop is worth: ratings in the order of time, learnt as they come, against the same model trained once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from penstock.streams import open_topic
from penstock.training.bundle import load
from penstock.training.live import settings
from penstock.training.live.run import Loop
from penstock.training.metrics import auc

pytestmark = pytest.mark.realdata

FEATURES = """<features xmlns="urn:penstock:features:1" name="movielens" seed="0">
  <define name="genre" fn="split" from="genres" sep=" "/>
  <slot name="person" id="1" fn="hash" from="user_id"/>
  <slot name="film" id="2" fn="hash" from="item_id"/>
  <slot name="work" id="3" fn="hash" from="occupation"/>
  <slot name="kind" id="4" fn="hash" from="genre"/>
  <slot name="person_kind" id="5" fn="descartes" from="user_id genre"/>
</features>
"""
FLOW = """<flow xmlns="urn:penstock:flow:1" name="half">
  <node name="model">
    <input name="rows" type="parquet" path="first.parquet"/>
    <process name="mapped" type="features" from="rows" map="features.xml" keep="click"/>
    <process name="m" type="lr" from="mapped" label="click"/>
    <output name="bundle" type="model" from="m" path="model"/>
  </node>
</flow>
"""


def ratings(folder: Path) -> pl.DataFrame:
    """Ratings with who and what, in the order of time; ties as they stand in the file."""
    inter, item, user = (
        pl.read_csv(
            folder / f"ml-100k.{name}", separator="\t", quote_char=None, infer_schema=False,
           
        ).rename(lambda column: column.partition(":")[0])
        for name in ("inter", "item", "user")
    )  # fmt: skip
    joined = inter.join(item, "item_id", maintain_order="left").join(user, "user_id", maintain_order="left")
    return joined.select(
        "user_id", "item_id", "occupation", genres="class", click=(pl.col("rating").cast(pl.Float64) >= 4).cast(int),
        time_ms=(pl.col("timestamp").cast(pl.Float64) * 1000).cast(int),
    ).sort("time_ms", maintain_order=True)  # fmt: skip


def test_a_loop_beats_the_model_that_was_trained_once(
    realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENSTOCK_REGISTRY", str(tmp_path / "registry"))
    rows = ratings(realdata / "movielens-100k")
    half = rows.height // 2
    first, second = rows.head(half), rows.tail(rows.height - half)
    first.write_parquet(tmp_path / "first.parquet")
    (tmp_path / "features.xml").write_text(FEATURES)
    (tmp_path / "flow.xml").write_text(FLOW)
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", "flow.xml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    with open_topic(f"log:{tmp_path}/samples") as topic:
        for part in second.with_row_index("at").iter_slices(5000):
            values, keys = [], []
            for row in part.iter_rows(named=True):
                at, label, when = row.pop("at"), row.pop("click"), row.pop("time_ms")
                own = {"_id": f"{at}/0", "_kind": "impression", "_label": label, "_time_ms": when, "_emit_ms": when}
                values.append(json.dumps({**row, **own}).encode())
                keys.append(own["_id"].encode())
            topic.append(values, keys=keys, times_ms=part["time_ms"].to_list())
    (tmp_path / "loop.toml").write_text(
        '[model]\nname = "movielens"\nstart = "model"\n[samples]\ntopic = "log:samples"\n'
        '[train]\ndeterministic = true\nbatch = 50\n[checkpoints]\nfolder = "cuts"\n'
    )
    loop = Loop(settings.read(tmp_path / "loop.toml"))

    def stop() -> None:
        deadline = time.monotonic() + 200
        while loop.state.samples < second.height and time.monotonic() < deadline:
            time.sleep(0.02)
        loop.stop()

    threading.Thread(target=stop).start()
    loop.run()
    assert loop.state.samples == second.height == 50_000
    static = auc(
        second["click"].to_numpy().astype(float), load(tmp_path / "model").score(second, threads=os.cpu_count() or 1)
    )
    progressive = loop.quality.values()["auc"]
    assert static is not None and progressive is not None
    print(f"movielens-100k, second half: trained once {static:.4f}, in a loop {progressive:.4f}")
    assert progressive >= static + 0.01
