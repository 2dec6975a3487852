"""`penstock serve` on free ports with a trained bundle, and the environments of the clients that judge it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from .environments import NotInstalled, python_of
from .hosts import Host, running

TOKEN = "a token of these tests"
FEATURES = """<features xmlns="urn:penstock:features:1" name="judged" seed="7">
  <slot name="user_id" id="1" fn="hash" from="user"/>
  <slot name="city_id" id="2" fn="hash" from="city" null="key"/>
  <slot name="price_step" id="3" fn="piecewise" from="price" bounds="5, 10, 20, 40, 80"/>
  <slot name="hour" id="4" fn="bucketize_time" from="at" part="hour"/>
  <slot name="tag" id="5" fn="hash" from="tags"/>
  <slot name="membership" id="6" fn="hash" from="member"/>
  <dense name="log_price" fn="log1p" from="price"/>
</features>"""
FLOW = """<flow xmlns="urn:penstock:flow:1" name="judged"><node name="model">
  <input name="rows" type="parquet" path="rows.parquet"/>
  <process name="mapped" type="features" from="rows" map="features.xml" keep="label"/>
  <process name="small" type="gbdt_lr" from="mapped" label="label" trees="10"/>
  <process name="large" type="gbdt_lr" from="mapped" label="label" trees="30"/>
  <output name="one" type="model" from="small" path="out/1"/>
  <output name="two" type="model" from="large" path="out/2"/>
</node></flow>"""


def sample(count: int, seed: int) -> pl.DataFrame:
    """Rows with every kind of column, one in ten cells of those that may be null gone."""
    draw = np.random.default_rng(seed)
    price = draw.gamma(2.0, 20.0, count)
    member = draw.random(count) < 0.5
    frame = pl.DataFrame(
        {
            "label": (draw.random(count) < 1 / (1 + np.exp(2 - price / 30 - member))).astype(np.int64),
            "user": draw.integers(-5, 60, count),
            "city": draw.choice(["Lima", "Århus", "القاهرة", "北京"], count),
            "price": price,
            "member": member,
            "at": pl.Series(draw.integers(0, 10**15, count)).cast(pl.Datetime("us")),
            "tags": [[f"t{n}" for n in draw.integers(0, 9, draw.integers(0, 4))] for _ in range(count)],
        }
    )
    gone = {name: pl.Series(draw.random(count) < 0.1) for name in ("user", "city", "price", "member", "at")}
    return frame.with_columns(pl.when(~mask).then(pl.col(name)).alias(name) for name, mask in gone.items())


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bundles `1` and `2`, of one signature."""
    folder = tmp_path_factory.mktemp("judged")
    sample(2_000, 1).write_parquet(folder / "rows.parquet")
    (folder / "features.xml").write_text(FEATURES)
    (folder / "flow.xml").write_text(FLOW)
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", "flow.xml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="session")
def serving_host(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with model `judged`, versions 1 and 2 (all traffic to 2), open to everybody on this machine."""
    with running(tmp_path_factory.mktemp("open"), models(bundles)) as host:
        yield host


@pytest.fixture(scope="session")
def guarded_host(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The same, for the holder of `TOKEN` only, who may administrate it."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    token = f'[[tokens]]\nname = "tests"\nsha256 = "{digest}"\nscopes = ["infer", "admin", "metrics"]\n'
    with running(tmp_path_factory.mktemp("guarded"), token + models(bundles), token=TOKEN) as host:
        yield host


def models(bundles: Path) -> str:
    return f'[models.judged.versions]\n1 = "{bundles}/1"\n2 = "{bundles}/2"\n'


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Path]:
    """The interpreter of another environment; a test that cannot have it is skipped, which fails in CI."""

    def python(name: str) -> Path:
        try:
            return python_of(name)
        except NotInstalled as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))

    return python
