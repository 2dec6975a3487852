"""`lr` and `fm`: what they learn, what they refuse, and what stays the same to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from penstock.data.schema import ModelInfo, Schema
from penstock.errors import PenstockError, ProblemsFound
from penstock.operators.base import CheckContext
from penstock.training.bundle import Bundle, load
from penstock.training.metrics import auc, logloss
from penstock.training.online_operators import Fm, Lr

Rows = Callable[..., pl.DataFrame]
TRAINERS: dict[str, Any] = {"lr": Lr, "fm": Fm}
BOTH = pytest.mark.parametrize("type_", TRAINERS)


def step(type_: str, **attrs: str) -> Any:
    return TRAINERS[type_].model_validate({"from": "rows", "label": "label", **attrs})


def trained(run: Any, rows: pl.DataFrame, type_: str, *, more: Any = None, **attrs: str) -> Bundle:
    options = {"threads": int(attrs.pop("_threads", "2")), "batch_rows": int(attrs.pop("_batch", "1000"))}
    return load(run(step(type_, **attrs), {"rows": rows, **(more or {})}, **options).outputs[""].path)


def auc_of(bundle: Bundle, rows: pl.DataFrame) -> float:
    found = auc(rows["label"].to_numpy().astype(float), bundle.score(rows))
    assert found is not None
    return found


@BOTH
@pytest.mark.parametrize(
    ("attrs", "least"),
    [
        ({"columns": "age price user"}, 0.68),
        ({"exclude": "truth"}, 0.59),
        ({"keys": "user"}, 0.65),
        ({"keys": "user", "fields": "position", "optimizer": "adagrad"}, 0.65),
        ({"keys": "user", "optimizer": "sgd", "alpha": "0.1", "batch": "1"}, 0.65),
    ],
)
def test_it_learns_what_is_there(run: Any, rows: Rows, type_: str, attrs: dict[str, str], least: float) -> None:
    bundle = trained(run, rows(8000), type_, **{"alpha": "0.2", **attrs})
    assert auc_of(bundle, rows(4000, 1)) >= least
    assert bundle.info.algorithm == type_
    assert any("8,000 samples" in told and "logloss" in told for told in run.context.told)


@BOTH
def test_threads_and_batches_change_no_bit(run: Any, rows: Rows, type_: str) -> None:
    given = rows(3000)
    first = trained(run, given, type_, columns="age price user", _threads="1", _batch="3000")
    second = trained(run, given, type_, columns="age price user", _threads="3", _batch="700")
    test = rows(1000, 1)
    scores = first.score(test, threads=1)
    assert scores.tobytes() == second.score(test, threads=3).tobytes()
    apart = np.concatenate([second.score(part) for part in test.iter_slices(37)])
    assert scores.tobytes() == apart.tobytes()
    assert first.metrics == second.metrics


def ftrl(rows: pl.DataFrame, alpha: float, beta: float, l1: float, l2: float) -> tuple[dict[int, float], float]:
    """McMahan's per-coordinate FTRL-proximal, row by row in plain Python: weights by key (-1 the bias), mean loss."""
    z: dict[int, float] = {}
    n: dict[int, float] = {}
    w: dict[int, float] = {}
    loss = 0.0
    for keys, label in zip(rows["user"].to_list(), rows["label"].to_list(), strict=True):
        entries = [-1, *keys]
        p = 1 / (1 + math.exp(-sum(w.get(k, 0.0) for k in entries)))
        loss -= math.log(p if label else 1 - p)
        for k in entries:
            g = p - label
            own = (0.0, 0.0) if k == -1 else (l1, l2)
            sigma = (math.sqrt(n.get(k, 0.0) + g * g) - math.sqrt(n.get(k, 0.0))) / alpha
            z[k] = z.get(k, 0.0) + g - sigma * w.get(k, 0.0)
            n[k] = n.get(k, 0.0) + g * g
            if abs(z[k]) <= own[0]:
                w[k] = 0.0
            else:
                w[k] = -(z[k] - math.copysign(own[0], z[k])) / ((beta + math.sqrt(n[k])) / alpha + own[1])
    return w, loss / len(rows)


def test_row_by_row_it_is_the_papers_ftrl(run: Any, rows: Rows) -> None:
    given = rows(1500)
    bundle = trained(run, given, "lr", keys="user", batch="1", alpha="0.1", l1="0.05", l2="0.3")
    expected, loss = ftrl(given, 0.1, 1.0, 0.05, 0.3)
    stored = pq.read_table(run.context.scratch / "bundle" / "rows.parquet").to_pydict()
    found = {
        (-1 if field < 0 else key): w for field, key, w in zip(stored["field"], stored["key"], stored["w"], strict=True)
    }
    assert found.keys() == expected.keys()
    assert max(abs(found[key] - expected[key]) for key in found) < 1e-6
    assert any(w == 0 for w in found.values())
    assert bundle.metrics["progressive_logloss"] == pytest.approx(loss, abs=1e-6)


@BOTH
def test_progressive_metrics_are_those_of_scores_before_learning(run: Any, rows: Rows, type_: str) -> None:
    """They say less than the trained model would of its own rows, and as much as it will of new ones."""
    given = rows(20_000)
    bundle = trained(run, given, type_, columns="age price user", alpha="0.2")
    again = logloss(given["label"].to_numpy().astype(float), bundle.score(given))
    assert again < bundle.metrics["progressive_logloss"] < 0.66
    assert bundle.metrics["rows"] == 20_000
    assert 0.6 < bundle.metrics["progressive_auc"] < auc_of(bundle, given)


@BOTH
def test_passes_end_when_valid_rows_stop_gaining(run: Any, rows: Rows, type_: str) -> None:
    given, valid = rows(4000), rows(4000, 1)
    attrs = {"keys": "user", "alpha": "0.5", "min_count": "1"}
    stopped = trained(run, given, type_, more={"v": valid}, valid="v", epochs="50", **attrs)
    passes = stopped.metrics["epochs"]
    assert 1 <= passes < 50
    exactly = trained(run, given, type_, epochs=str(passes), **attrs)
    assert exactly.score(valid).tobytes() == stopped.score(valid).tobytes()
    assert stopped.metrics["valid_auc"] == pytest.approx(auc_of(stopped, valid))


@BOTH
def test_sample_weights_count_as_rows(run: Any, rows: Rows, type_: str) -> None:
    """A row of weight 0 says nothing."""
    given = rows(4000).with_columns(w=pl.Series([1.0, 0.0] * 2000))
    weighted = trained(run, given, type_, keys="user", weight="w", batch="1")
    flipped = given.with_columns(label=pl.when(pl.col("w") == 0).then(1 - pl.col("label")).otherwise(pl.col("label")))
    other = trained(run, flipped, type_, keys="user", weight="w", batch="1")
    assert weighted.score(given).tobytes() == other.score(given).tobytes()


@BOTH
def test_it_goes_on_from_an_earlier_model(run: Any, rows: Rows, type_: str) -> None:
    """Half and then the other half, row by row, is the whole."""
    given = rows(4000)
    attrs = {"keys": "user", "batch": "1", "min_count": "1", "seed": "3"}
    whole = trained(run, given, type_, **attrs)
    first = run(step(type_, **attrs), {"rows": given.head(2000)}).outputs[""]
    second = trained(run, given.tail(2000), type_, more={"m": first}, start="m", **attrs)
    assert whole.score(given).tobytes() == second.score(given).tobytes()
    assert [row[0] for row in run.context.sections[0]["rows"]] == ["user"]


def test_a_new_column_begins_and_a_missing_one_is_dropped(run: Any, rows: Rows) -> None:
    given = rows(3000)
    first = run(step("lr", columns="age user"), {"rows": given}).outputs[""]
    bundle = trained(run, given, "lr", more={"m": first}, start="m", columns="price user")
    became = {row[0]: row[2] for row in run.context.sections[0]["rows"]}
    assert became == {"age": "dropped", "price": "new", "user": "carried"}
    assert auc_of(bundle, rows(3000, 1)) > 0.6


def test_a_start_that_does_not_fit_is_refused(run: Any, rows: Rows) -> None:
    first = run(step("lr", keys="user"), {"rows": rows(500)}).outputs[""]
    with pytest.raises(ProblemsFound) as raised:
        run(step("fm", keys="user", start="m"), {"rows": rows(500), "m": first})
    assert "TRAIN020" in str(raised.value)
    ranked = run(step("fm", keys="user", rank="4"), {"rows": rows(500)}).outputs[""]
    with pytest.raises(PenstockError, match="TRAIN020"):
        run(step("fm", keys="user", start="m"), {"rows": rows(500), "m": ranked})
    known: dict[str, Any] = {"rows": Schema.unknown(), "m": ModelInfo("gbdt")}
    assert [f.code for f in step("lr", start="m").check(known, CheckContext()).faults] == ["TRAIN020"]


@BOTH
def test_a_copied_bundle_scores_the_same_bits(run: Any, rows: Rows, type_: str, tmp_path: Path) -> None:
    bundle = trained(run, rows(3000), type_, columns="age price user")
    bundle.save(tmp_path / "copy")
    test = rows(500, 1)
    assert load(tmp_path / "copy").score(test).tobytes() == bundle.score(test).tobytes()
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    assert manifest["model"]["form"] == "online"
    assert set(manifest["files"]) == {"rows.parquet", "categories.json"}


@BOTH
def test_keys_nobody_has_seen_add_nothing(run: Any, rows: Rows, type_: str) -> None:
    bundle = trained(run, rows(2000), type_, keys="user")
    unseen = pl.DataFrame({"user": [[2**63 - 1], [], None]}, schema={"user": pl.List(pl.UInt64)})
    scores = bundle.score(unseen)
    assert scores[0] == scores[1] == scores[2]


def test_the_largest_and_smallest_keys_are_keys(run: Any) -> None:
    given = pl.DataFrame(
        {"k": [[0], [2**64 - 1]] * 300, "label": [0, 1] * 300}, schema_overrides={"k": pl.List(pl.UInt64)}
    )
    low, high = trained(run, given, "lr", keys="k", alpha="1").score(given.head(2))
    assert low < 0.1
    assert high > 0.9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.with_columns(label=pl.col("label") + 1), "TRAIN002"),
        (lambda d: d.with_columns(label=pl.when(pl.col("age") > 60).then(None).otherwise(pl.col("label"))), "TRAIN003"),
        (lambda d: d.with_columns(label=pl.lit(1)), "TRAIN004"),
        (lambda d: d.clear(), "TRAIN004"),
        (lambda d: d.with_columns(label=pl.when(pl.int_range(pl.len()) < 2000).then(-1).otherwise(pl.col("label"))),
         "TRAIN002"),
    ],
)  # fmt: skip
def test_labels_are_refused_as_everywhere(run: Any, rows: Rows, change: Any, said: str) -> None:
    with pytest.raises(PenstockError, match=said):
        trained(run, change(rows(4000)), "lr", keys="user")


@BOTH
@pytest.mark.parametrize("strange", [float("nan"), -1.0, float("inf")])
def test_strange_sample_weights_are_refused(run: Any, rows: Rows, type_: str, strange: float) -> None:
    given = rows(3000).with_columns(w=pl.when(pl.int_range(pl.len()) == 2500).then(strange).otherwise(1.0))
    with pytest.raises(PenstockError, match="TRAIN005"):
        trained(run, given, type_, keys="user", weight="w")


def test_a_batch_of_zero_weights_is_no_fault(run: Any, rows: Rows) -> None:
    given = rows(3000).with_columns(w=pl.when(pl.int_range(pl.len()) < 1000).then(0.0).otherwise(1.0))
    assert auc_of(trained(run, given, "lr", keys="user", weight="w", alpha="0.2"), rows(2000, 1)) > 0.6


def test_weights_of_keys_scale_and_a_nan_drops_the_key(run: Any, rows: Rows) -> None:
    given = rows(3000).with_columns(x=pl.lit([1.0, 0.5], pl.List(pl.Float32)))
    bundle = trained(run, given, "lr", keys="user", weights="x")
    nan = given.head(5).with_columns(x=pl.lit([1.0, float("nan")], pl.List(pl.Float32)))
    alone = given.head(5).with_columns(pl.col("user").list.head(1), x=pl.lit([1.0], pl.List(pl.Float32)))
    assert bundle.score(nan).tobytes() == bundle.score(alone).tobytes()
    infinite = given.with_columns(x=pl.lit([1.0, float("inf")], pl.List(pl.Float32)))
    with pytest.raises(PenstockError, match="TRAIN015"):
        trained(run, infinite, "lr", keys="user", weights="x")


def test_weights_that_leave_all_bounds_are_told(run: Any, rows: Rows) -> None:
    given = rows(3000).with_columns(x=pl.lit([1e30, 1e30], pl.List(pl.Float32)))
    with pytest.raises(PenstockError, match="TRAIN021") as raised:
        trained(run, given, "lr", keys="user", weights="x", optimizer="sgd", alpha="1e9")
    assert "lower alpha" in str(raised.value)


def test_nulls_among_keys_and_lists_are_left_out(run: Any, rows: Rows) -> None:
    given = rows(2000)
    holes = given.with_columns(user=pl.concat_list(pl.col("user"), pl.lit(None, pl.UInt64)))
    bundle = trained(run, holes, "lr", keys="user")
    assert bundle.score(holes).tobytes() == trained(run, given, "lr", keys="user").score(given).tobytes()
