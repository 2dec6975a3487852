"""Fitted items learn from fit_from alone, exactly, and the same however the rows arrive."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import native
from penstock.data.schema import Schema
from penstock.errors import DataError
from penstock.features import CheckedFile, Plan, check, read
from penstock.features.fit import learn
from penstock.features.resolve import resolve

FILE = """<features xmlns="urn:penstock:features:1" name="fitted">
  <define name="lp" fn="log1p" from="price"/>
  <define name="bucket" fn="piecewise" from="lp" bounds="quantile:4"/>
  <define name="words" fn="split" from="text" sep=" "/>
  <slot name="city" id="1" fn="pickcat" from="city" dict="fit:min_count=2"/>
  <slot name="word" id="2" fn="pickcat" from="words" dict="fit" unknown="skip"/>
  <slot name="price_b" id="3" fn="piecewise" from="price" bounds="quantile:3"/>
  <dense name="z" fn="normalize" from="price" fit="true"/>
  <dense name="unit" fn="normalize" from="bucket" method="minmax" fit="true"/>
</features>"""


ZSCORE = '<dense name="z" fn="normalize" from="x" fit="true"/>'


def checked_file(text: str, folder: Path) -> CheckedFile:
    path = folder / "features.xml"
    path.write_text(text)
    file, faults = read(path)
    assert file is not None and not faults
    checked = check(file, Schema.unknown())
    assert not checked.failed, checked.faults
    return checked


def fitted(checked: CheckedFile, frame: pl.DataFrame, folder: Path, size: int = 1_000) -> Plan:
    passes: list[Sequence[str]] = []

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        passes.append(columns)
        for part in frame.select(columns).iter_slices(size):
            yield from part.to_arrow().to_batches()

    plan = resolve(checked, learn(checked, batches, folder, lambda message: None))
    assert len(passes) <= 2, "one pass for what stands on raw columns, one for what builds on a fit"
    return plan


def params(plan: Plan, name: str) -> dict[str, Any]:
    return dict(next(item["params"] for item in plan.items if item["name"] == name))


ROWS = pl.DataFrame(
    {
        "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, None, math.nan, math.inf],
        "city": ["b", "a", "b", "a", "c", None, "", "", ""],
        "text": ["x y", "y", None, "", "z y", "x", "x", "y", "y"],
    },
    strict=False,
)


def test_what_is_learnt_is_what_the_page_says(tmp_path: Path) -> None:
    plan = fitted(checked_file(FILE, tmp_path), ROWS, tmp_path)
    assert params(plan, "z") == {"method": "zscore", "mean": 3.5, "std": pytest.approx(np.std([1, 2, 3, 4, 5, 6]))}
    assert params(plan, "price_b")["bounds"] == [3.0, 5.0]
    assert params(plan, "bucket")["bounds"] == [math.log1p(x) for x in (3.0, 4.0, 6.0)]
    assert params(plan, "unit") == {"method": "minmax", "min": 0.0, "max": 3.0}
    assert native.Dictionary.open(plan.dictionaries["fit.city"]).values() == ["", "a", "b"]
    assert native.Dictionary.open(plan.dictionaries["fit.word"]).values() == ["y", "x", "", "z"]
    row = {name: keys or dense for name, keys, _, dense in plan.apply_row({"city": "b", "price": 6.0, "text": "z q"})}
    assert (row["city"], row["word"]) == ([1 << 52 | 3], [2 << 52 | 4])


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.none() | st.floats(), min_size=1, max_size=300).filter(
        lambda xs: any(x is not None and math.isfinite(x) and abs(x) < 1e150 for x in xs)
    ),
    size=st.integers(1, 400),
)
def test_batches_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None], size: int
) -> None:
    folder = tmp_path_factory.mktemp("fit")
    text = """<features xmlns="urn:penstock:features:1" name="n">
      <slot name="q" id="1" fn="piecewise" from="x" bounds="quantile:7"/>
      <dense name="z" fn="normalize" from="x" fit="true"/>
    </features>"""
    capped = [x if x is None or abs(x) < 1e150 or not math.isfinite(x) else 1.0 for x in values]
    frame = pl.DataFrame({"x": capped}, schema={"x": pl.Float64})
    checked = checked_file(text, folder)
    assert fitted(checked, frame, folder, size).fingerprint == fitted(checked, frame, folder, 1_000).fingerprint


def test_large_columns_learn_the_same_in_any_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frame = pl.DataFrame(
        {
            "price": rng.normal(1e6, 1, 200_000),
            "city": rng.integers(0, 50_000, 200_000).astype(str),
            "text": rng.integers(0, 9, 200_000).astype(str),
        }
    )
    checked = checked_file(FILE, tmp_path)
    plans = [fitted(checked, frame, tmp_path, size) for size in (200_000, 7_777)]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert params(plans[0], "z")["std"] == pytest.approx(frame["price"].std(ddof=0), rel=1e-12)


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    text = f'<features xmlns="urn:penstock:features:1" name="n">{ZSCORE}</features>'
    with pytest.raises(DataError, match="'z' has nothing to learn from: 'x' has no usable value"):
        fitted(checked_file(text, tmp_path), pl.DataFrame({"x": [None, math.nan]}, strict=False), tmp_path)


def test_a_constant_becomes_zero(tmp_path: Path) -> None:
    text = f'<features xmlns="urn:penstock:features:1" name="n">{ZSCORE}</features>'
    plan = fitted(checked_file(text, tmp_path), pl.DataFrame({"x": [5, 5, 5]}), tmp_path)
    assert plan.apply(pl.DataFrame({"x": [5, 6]}))["z"].to_list() == [0.0, 1.0]
