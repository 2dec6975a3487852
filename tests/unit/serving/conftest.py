"""Bundles of every form of model, trained by one flow, and rows to score."""

from __future__ import annotations

import datetime as dt
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

FEATURES = """<features xmlns="urn:penstock:features:1" name="f" seed="7">
  <dict name="cities" path="cities.txt"/>
  <define name="words" fn="split" from="title" sep=" "/>
  <slot name="user" id="1" fn="hash" from="user"/>
  <slot name="city_no" id="2" fn="pickcat" from="city" dict="cities"/>
  <slot name="price_step" id="3" fn="piecewise" from="price" bounds="quantile:8" fit_from=""/>
  <slot name="hour" id="4" fn="bucketize_time" from="at" part="hour"/>
  <slot name="cross" id="5" fn="combine" from="city_no hour"/>
  <slot name="word" id="6" fn="multi_hot" from="words"/>
  <slot name="tag" id="7" fn="hash" from="tags" weight="tag_weights"/>
  <slot name="day" id="8" fn="hash" from="day"/>
  <slot name="member" id="9" fn="hash" from="member" null="key"/>
  <dense name="log_price" fn="log1p" from="price"/>
  <dense name="visits_z" fn="normalize" from="visits" fit="true"/>
</features>""".replace(' fit_from=""', "")

MODELS = {
    "gbdt_raw": '<process name="m" type="gbdt" from="rows" label="label" exclude="user" trees="20"/>',
    "gbdt": '<process name="m" type="gbdt" from="mapped" label="label" trees="20"/>',
    "gbdt_lr": '<process name="m" type="gbdt_lr" from="mapped" label="label" trees="20"/>',
    "svm": '<process name="m" type="svm" from="mapped" label="label" c="0.1"/>',
    "svm_raw": '<process name="m" type="svm" from="rows" label="label" columns="price visits" c="0.1"/>',
    "lr": '<process name="m" type="lr" from="mapped" label="label"/>',
    "fm": '<process name="m" type="fm" from="mapped" label="label" rank="4"/>',
    "flat": '<process name="m" type="lr" from="flat" label="label"/>',
    "places": '<process name="m" type="lr" from="rows" label="label" keys="ids" fields="position"/>',
    "wide_deep": '<process name="m" type="deep" model="wide_deep" from="mapped" label="label" dim="4" hidden="8"/>',
    "din": '<process name="m" type="deep" model="din" from="mapped" label="label" dim="4" hidden="8"'
    ' history="word=tag"/>',
}


def rows(count: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    price = draw.gamma(2.0, 20.0, count)
    visits = draw.poisson(4, count)
    tags = [[f"t{t}" for t in draw.integers(0, 9, draw.integers(0, 4))] for _ in range(count)]
    start = dt.datetime(2026, 3, 1)
    frame = pl.DataFrame(
        {
            "label": (draw.random(count) < 1 / (1 + np.exp(3 - price / 20 - visits / 8))).astype(np.int64),
            "user": draw.integers(0, 60, count),
            "city": draw.choice(["lima", "oslo", "rome", "nowhere"], count),
            "price": price,
            "visits": visits.astype(np.int32),
            "small": draw.random(count).astype(np.float32),
            "member": draw.random(count) < 0.5,
            "at": [start + dt.timedelta(minutes=int(m)) for m in draw.integers(0, 90_000, count)],
            "day": [(start + dt.timedelta(days=int(d))).date() for d in draw.integers(0, 90, count)],
            "title": [" ".join(draw.choice(["red", "blue", "shoe", "hat"], draw.integers(1, 4))) for _ in range(count)],
            "tags": pl.Series(tags, dtype=pl.List(pl.String)),
            "tag_weights": [[round(float(w), 3) for w in draw.random(len(t))] for t in tags],
            "ids": [[int(i) for i in draw.integers(0, 50, 3)] for _ in range(count)],
        }
    )
    empty = {
        name: pl.Series(draw.random(count) < 0.05) for name in ("city", "price", "visits", "member", "at", "small")
    }
    return frame.with_columns(pl.when(~gone).then(pl.col(name)).alias(name) for name, gone in empty.items())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle a model, trained by one flow."""
    folder = tmp_path_factory.mktemp("served")
    rows(3_000, 1).write_parquet(folder / "rows.parquet")
    (folder / "features.xml").write_text(FEATURES)
    (folder / "cities.txt").write_text("lima\noslo\nrome\n")
    nodes = [node(name, step) for name, step in MODELS.items() if "deep" not in step or torch_is_here()]
    (folder / "flow.xml").write_text(
        f'<flow xmlns="urn:penstock:flow:1" name="served">{"".join(nodes)}</flow>', encoding="utf-8"
    )
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", "flow.xml", "--jobs", "2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def node(name: str, step: str) -> str:
    maps = '<process name="mapped" type="features" from="rows" map="features.xml" keep="label"/>'
    flat = '<process name="flat" type="features" from="rows" map="features.xml" keep="label" form="flat"/>'
    needed = maps if 'from="mapped"' in step else flat if 'from="flat"' in step else ""
    return (
        f'<node name="{name}"><input name="rows" type="parquet" path="rows.parquet"/>{needed}{step}'
        f'<output name="o" type="model" from="m" path="out/{name}"/></node>'
    )


def torch_is_here() -> bool:
    return importlib.util.find_spec("torch") is not None


@pytest.fixture(scope="session")
def fresh() -> pl.DataFrame:
    """Rows that no model was trained on."""
    return rows(400, 2)
