"""The rows that training leaves in a bundle for a host to warm up with: requests as a client would make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import native
from penstock.registry import bundles
from penstock.registry.runtime import onnxruntime_library
from penstock.serving.tensors import array_of, tensors_of
from penstock.training import warm_rows
from penstock.training.bundle import load

FORMS = ["gbdt_raw", "gbdt", "gbdt_lr", "svm", "svm_raw", "lr", "fm", "flat", "wide_deep", "din"]


@pytest.mark.parametrize("form", FORMS)
def test_they_score_as_the_rows_of_training_that_they_are(trained: Path, form: str) -> None:
    folder = trained / form
    if not folder.is_dir():
        pytest.skip(f"{form} was not trained: PyTorch is not installed")
    manifest = bundles.read_manifest(folder)
    asked, first = pq.read_table(folder / "warmup.parquet"), pl.read_parquet(trained.parent / "rows.parquet").head(64)
    assert manifest["warmup"] == {"file": "warmup.parquet", "rows": 64} and asked.num_rows == 64
    assert set(asked.column_names) == set(load(folder).columns), "what the model reads and nothing else"
    model = native.ServedModel(str(folder), str(onnxruntime_library() or ""))
    found, wanted = (
        array_of(model.predict(tensors_of(t, model.inputs), ())[0])
        for t in (asked, first.select(asked.column_names).to_arrow())
    )
    np.testing.assert_array_equal(found, wanted)
    assert len(set(found.tolist())) > 8


def test_a_bundle_that_is_saved_again_keeps_them_and_an_older_one_has_none(trained: Path, tmp_path: Path) -> None:
    bundle = load(trained / "gbdt_lr")
    bundle.save(tmp_path / "again")
    assert pq.read_table(tmp_path / "again/warmup.parquet").equals(pq.read_table(trained / "gbdt_lr/warmup.parquet"))
    manifest = json.loads((tmp_path / "again/manifest.json").read_text())
    del manifest["warmup"], manifest["files"]["warmup.parquet"]
    (tmp_path / "again/warmup.parquet").unlink()
    (tmp_path / "again/manifest.json").write_text(json.dumps({**manifest, "format_version": 1}))
    assert load(tmp_path / "again").warmup is None


def test_columns_are_as_requests_hold_them_and_what_none_can_hold_is_left_out() -> None:
    given: dict[str, Any] = {
        "text": pa.array(["a", None], pa.large_string()),
        "category": pa.array(["x", "y"]).dictionary_encode(),
        "price": pa.array([1, None], pa.int16()),
        "half": pa.array(np.float16([0.5, 1])),
        "money": pa.array([1, 2], pa.decimal128(9, 2)),
        "at": pa.array([1_000, 2_000], pa.timestamp("ns")),
        "day": pa.array([0, 1], pa.date32()),
        "tags": pa.array([["å", None], None]),
        "weights": pa.array([[0.5, float("nan")], []]),
        "struct": pa.array([{"a": 1}, None]),
        "times": pa.array([[0], [1]], pa.list_(pa.timestamp("us"))),
        "blob": pa.array([b"\xff", b""]),
    }
    made = warm_rows.as_asked(pa.table(given))
    assert not {"struct", "times", "blob"} & set(made.column_names)
    assert made["text"].type == made["category"].type == pa.string() and made["price"].type == pa.int16()
    assert made["at"].cast(pa.int64()).to_pylist() == [1, 2] and made["day"].to_pylist() == ["1970-01-01", "1970-01-02"]
    assert [json.loads(row) if row else row for row in made["tags"].to_pylist()] == [["å", None], None]
    assert [json.loads(row) for row in made["weights"].to_pylist()] == [[0.5, None], []]
    assert made["money"].to_pylist() == [1.0, 2.0] and made["half"].type == pa.float32()
    long = pa.table({"text": ["x" * 100_000] * 64})
    assert warm_rows.as_asked(long).num_rows == 8, "a mebibyte at most"
