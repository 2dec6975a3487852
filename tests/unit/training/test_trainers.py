"""What a user may rely on in each algorithm: quality, reproducibility, early stopping, and clear refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest

from penstock.data.schema import Column, ModelInfo, Schema
from penstock.errors import PenstockError, ProblemsFound
from penstock.operators.base import CheckContext, Model
from penstock.training.bundle import Bundle, load
from penstock.training.metrics import auc
from penstock.training.operators import Evaluate, Gbdt, GbdtLr, Predict, Svm

Rows = Callable[..., pl.DataFrame]
TRAINERS = {"gbdt": Gbdt, "gbdt_lr": GbdtLr, "svm": Svm}
COLUMNS = "age price city user"


def step(type_: str, **attrs: str) -> Any:
    return TRAINERS[type_].model_validate({"from": "rows", "label": "label", **attrs})


def trained(run: Any, rows: pl.DataFrame, type_: str, **attrs: str) -> Bundle:
    options = {"threads": int(attrs.pop("_threads", "2")), "batch_rows": int(attrs.pop("_batch", "1000"))}
    return load(run(step(type_, **attrs), {"rows": rows}, **options).outputs[""].path)


def auc_of(bundle: Bundle, rows: pl.DataFrame) -> float:
    found = auc(rows["label"].to_numpy().astype(float), bundle.score(rows))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("type_", "attrs", "least"),
    [
        ("gbdt", {"exclude": "truth"}, 0.68),
        ("gbdt_lr", {"columns": COLUMNS}, 0.74),
        ("gbdt_lr", {"columns": COLUMNS, "linear": "leaves"}, 0.68),
        ("gbdt_lr", {"keys": "user"}, 0.63),
        ("gbdt", {"keys": "user", "fields": "position"}, 0.63),
        ("svm", {"columns": "age price user"}, 0.62),
    ],
)
def test_it_learns_what_is_there(run: Any, rows: Rows, type_: str, attrs: Mapping[str, str], least: float) -> None:
    bundle = trained(run, rows(8000), type_, **attrs)
    assert auc_of(bundle, rows(4000, 1)) >= least
    assert bundle.info.algorithm == type_
    assert any("tree" in t or "fitting" in t for t in run.context.told)


@pytest.mark.parametrize("type_", TRAINERS)
def test_scores_are_calibrated(run: Any, rows: Rows, type_: str) -> None:
    columns = "age price user" if type_ == "svm" else COLUMNS if type_ == "gbdt_lr" else "age price city"
    test = rows(8000, 1)
    scores = trained(run, rows(8000), type_, columns=columns).score(test)
    assert scores.mean() == pytest.approx(test["label"].mean(), rel=0.06)


@pytest.mark.parametrize("type_", TRAINERS)
def test_threads_and_batches_change_no_bit(run: Any, rows: Rows, type_: str) -> None:
    given = rows(3000)
    columns = "age price user" if type_ == "svm" else COLUMNS if type_ == "gbdt_lr" else "age price city"
    first = trained(run, given, type_, columns=columns, _threads="1", _batch="3000")
    second = trained(run, given, type_, columns=columns, _threads="3", _batch="700")
    test = rows(1000, 1)
    scores = first.score(test, threads=1)
    assert scores.tobytes() == second.score(test, threads=3).tobytes()
    apart = np.concatenate([second.score(part) for part in test.iter_slices(37)])
    assert scores.tobytes() == apart.tobytes()


def test_the_leaf_only_form_is_one_lightgbm_model(run: Any, rows: Rows) -> None:
    """Scored by LightGBM alone from its text, to 1e-6."""
    bundle = trained(run, rows(4000), "gbdt_lr", columns="age price city", linear="leaves", trees="60")
    folder = run.context.scratch / "bundle"
    alone = lgb.Booster(model_file=str(folder / "trees.txt"))
    test = rows(2000, 1)
    cities = bundle.encoder.categories["city"]
    codes = [float(cities.index(c)) for c in test["city"]]
    x = np.column_stack([test["age"], test["price"], codes])
    assert np.abs(alone.predict(x) - bundle.score(test)).max() <= 1e-6
    assert sorted(p.name for p in folder.iterdir()) == [
        "categories.json",
        "manifest.json",
        "trees.txt",
        "warmup.parquet",
    ]


def test_the_exported_leaf_values_are_the_regression_s_weights(run: Any, rows: Rows, monkeypatch: Any) -> None:
    from penstock.training import fitting, linear

    kept: list[linear.Fitted] = []
    real = linear.fit

    def spy(*args: Any, **kwargs: Any) -> linear.Fitted:
        kept.append(real(*args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(fitting.linear, "fit", spy)
    bundle = trained(run, rows(4000), "gbdt_lr", columns="age price city", linear="leaves", trees="40")
    test = rows(1000, 1)
    alone = lgb.Booster(model_file=str(run.context.scratch / "bundle" / "trees.txt"))
    cities = bundle.encoder.categories["city"]
    x = np.column_stack([test["age"], test["price"], [float(cities.index(c)) for c in test["city"]]])
    leaves = alone.predict(x, pred_leaf=True)
    [fitted] = kept
    margins = np.full(len(test), fitted.bias)
    for tree, weights in enumerate(fitted.leaves):
        margins += weights[leaves[:, tree]] / 2
    assert np.abs(1 / (1 + np.exp(-margins)) - bundle.score(test)).max() <= 1e-6


def test_l1_leaves_fewer_keys_in_the_model(run: Any, rows: Rows) -> None:
    given = rows(4000)
    free = trained(run, given, "gbdt_lr", columns=COLUMNS, trees="20", lr_l2="1")
    held = trained(run, given, "gbdt_lr", columns=COLUMNS, trees="20", lr_l2="1", lr_l1="5")
    assert 0 < held.metrics["keys"] < free.metrics["keys"] / 2


def test_valid_stops_early_and_is_measured(run: Any, rows: Rows) -> None:
    result = run(step("gbdt", columns="age price city", valid="later"), {"rows": rows(4000), "later": rows(2000, 1)})
    metrics = load(result.outputs[""].path).metrics
    assert metrics["trees"] < 200
    assert metrics["valid_auc"] > 0.68
    assert run.context.metrics_["rows"] == 4000
    assert [s["kind"] for s in run.context.sections] == ["bar"]


def test_a_valid_frame_without_a_column_is_a_problem(run: Any, rows: Rows) -> None:
    with pytest.raises(ProblemsFound, match="TRAIN009 the valid frame has no column 'city'"):
        run(step("gbdt", columns="age city", valid="v"), {"rows": rows(100), "v": rows(100).drop("city")})


def test_missing_and_unseen_values_are_scored(run: Any, rows: Rows) -> None:
    bundle = trained(run, rows(3000), "gbdt", columns="age price city")
    odd = pl.DataFrame({"age": [None, 40.0], "price": [float("nan"), float("inf")], "city": [None, "nowhere"]})
    scores = bundle.score(odd)
    assert np.isfinite(scores).all()
    assert ((scores > 0) & (scores < 1)).all()


def test_row_weights_count(run: Any, rows: Rows) -> None:
    """Positives that weigh nothing are as good as gone."""
    given = rows(3000).with_columns(w=pl.when(pl.col("label") == 1).then(0.01).otherwise(1.0))
    for type_ in TRAINERS:
        bundle = trained(run, given, type_, columns="age price", weight="w")
        assert bundle.score(given).mean() < 0.1, type_


def test_libsvm_rows_train_as_they_are_read(run: Any) -> None:
    """`indices` and `values` as the libsvm input gives them."""
    rng = np.random.default_rng(0)
    held = [sorted(rng.choice(30, 6, replace=False).tolist()) for _ in range(3000)]
    values = [[float(v) for v in rng.normal(1, 0.2, 6)] for _ in held]
    margin = np.array([sum(v for i, v in zip(h, vs, strict=True) if i < 8) for h, vs in zip(held, values, strict=True)])
    given = pl.DataFrame(
        {"label": np.where(rng.random(3000) < 1 / (1 + np.exp(-2 * (margin - 1.6))), 1.0, -1.0), "indices": held,
         "values": values, "qid": np.zeros(3000, np.int64)},
        schema_overrides={"values": pl.List(pl.Float32), "label": pl.Float32},
    )  # fmt: skip
    for type_ in TRAINERS:
        bundle = trained(run, given, type_, keys="indices", weights="values")
        found = auc((given["label"].to_numpy() > 0).astype(float), bundle.score(given))
        assert found is not None and found > 0.8, type_
        assert set(bundle.columns) == {"indices", "values"}


# --- what a check says ---


def faults(operator: Any, schema: Schema) -> list[str]:
    checked = operator.check({operator.from_: schema}, CheckContext())
    return [f"{f.code} {f.message} | {f.hint}" for f in checked.faults]


def schema_of_rows(rows: Rows) -> Schema:
    from penstock.engines.local_types import schema_of

    return schema_of(rows(10).lazy())


@pytest.mark.parametrize("type_", TRAINERS)
@pytest.mark.parametrize(
    ("attrs", "says"),
    [
        ({"label": "labl"}, "TRAIN001 label 'labl' is not a column of what arrives | did you mean 'label'?"),
        ({"label": "city"}, "TRAIN001 label 'city' is string; labels are 0 and 1, -1 and 1, or booleans"),
        ({"weight": "city"}, "TRAIN005 weight 'city' is string"),
        ({"columns": "age pricee"}, "TRAIN007 columns: there is no column 'pricee' | did you mean 'price'?"),
        ({"exclude": "agee"}, "TRAIN007 exclude: there is no column 'agee' | did you mean 'age'?"),
        ({"keys": "age"}, "TRAIN008 keys: column 'age' is double, not a list of integers"),
        ({"weights": "price"}, "TRAIN007 weights is given without keys"),
        ({"fields": "position"}, "TRAIN007 fields is given without keys"),
    ],
)
def test_a_check_names_the_mistake(rows: Rows, type_: str, attrs: Mapping[str, str], says: str) -> None:
    found = faults(step(type_, **attrs), schema_of_rows(rows))
    assert any(line.startswith(says) for line in found), found


def test_nothing_to_learn_from_is_a_problem() -> None:
    import pyarrow as pa

    kept = Schema((Column("label", pa.int64(), "kept"), Column("age", pa.float64(), "kept")))
    [found] = faults(step("gbdt"), kept)
    assert found.startswith("TRAIN006 there is no column to learn from")
    assert "keep" in found
    text = Schema((Column("label", pa.int64()), Column("city", pa.string())))
    assert faults(step("gbdt"), text) == []
    assert faults(step("svm"), text)[0].startswith("TRAIN006")


def test_an_unknown_schema_is_not_faulted() -> None:
    for type_ in TRAINERS:
        assert faults(step(type_), Schema.unknown()) == []


def test_a_label_of_one_class_is_refused_with_its_count(run: Any, rows: Rows) -> None:
    with pytest.raises(PenstockError, match="all 50 rows are 1"):
        run(step("gbdt", columns="age"), {"rows": rows(50).with_columns(label=pl.lit(1))})


# --- predict and evaluate ---


def test_scores_stream_into_evaluate(run: Any, rows: Rows) -> None:
    model: Model = run(step("gbdt", columns="age price city"), {"rows": rows(3000)}).outputs[""]
    test = rows(3000, 1).with_columns(group=pl.int_range(3000) % 50)
    predict = Predict.model_validate({"from": "x", "model": "m", "score": "p"})
    scored = run(predict, {"x": test, "m": model}).outputs[""].collect(engine="streaming")
    assert scored.columns == [*test.columns, "p"]
    assert scored["p"].to_numpy().tobytes() == load(model.path).score(test).tobytes()
    evaluate = Evaluate.model_validate({"from": "x", "label": "label", "score": "p", "by": "group"})
    [row] = run(evaluate, {"x": scored}).outputs[""].collect().to_dicts()
    assert list(row) == ["auc", "gauc", "logloss", "ne", "calibration", "ece", "pr_auc", "accuracy", "rows"]
    assert row["auc"] > 0.65 and row["rows"] == 3000
    assert [s["title"] for s in run.context.sections] == ["ROC curve", "Precision and recall", "Calibration"]
    assert run.context.metrics_["gauc"] == row["gauc"]


def test_predict_names_a_missing_column_before_it_runs(rows: Rows) -> None:
    info = ModelInfo("gbdt", "", "label", {"columns": {"age": "double", "city": "string"}})
    schema = schema_of_rows(rows).with_columns([Column("agee"), Column("city")])
    checked = Predict.model_validate({"from": "x", "model": "m"}).check({"x": schema, "m": info}, CheckContext())
    [fault] = checked.faults
    assert (fault.code, fault.hint) == ("TRAIN013", "did you mean 'age'?".replace("age", "agee"))


def test_the_registry_is_asked_for_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_REGISTRY", str(tmp_path / "nowhere"))
    predict = Predict.model_validate({"from": "x", "model": "models:/ctr@live"})
    [fault] = predict.check({"x": Schema.unknown()}, CheckContext()).faults
    assert (fault.code, "registry" in fault.message) == ("REG005", True)


def test_evaluate_refuses_missing_scores(run: Any) -> None:
    evaluate = Evaluate.model_validate({"from": "x", "label": "label"})
    with pytest.raises(PenstockError, match="TRAIN017 score 'score' is missing"):
        run(evaluate, {"x": pl.DataFrame({"label": [0, 1], "score": [0.5, None]})})
    found = evaluate.check({"x": Schema((Column("label"), Column("scor")))}, CheckContext()).faults
    assert [(f.code, f.hint) for f in found] == [("TRAIN007", "did you mean 'scor'?")]


def test_one_class_evaluates_to_null(run: Any) -> None:
    evaluate = Evaluate.model_validate({"from": "x", "label": "label"})
    [row] = run(evaluate, {"x": pl.DataFrame({"label": [1, 1], "score": [0.5, 0.7]})}).outputs[""].collect().to_dicts()
    assert row["auc"] is None and row["accuracy"] == 1.0


def test_a_core_install_is_told_what_trees_need_before_anything_runs(rows: Rows, monkeypatch: Any) -> None:
    monkeypatch.setattr("penstock.training.faults.find_spec", lambda name: None)
    schema = Schema(tuple(Column(name) for name in rows(1).columns))
    faults = step("gbdt").check({"rows": schema}, CheckContext()).faults
    assert [(f.code, f.hint) for f in faults] == [("TRAIN019", "pip install 'penstock[local]'")]
    assert not step("svm").check({"rows": schema}, CheckContext()).faults


def test_rows_to_warm_up_with_are_of_the_columns_read_and_may_be_left_out(run: Any, rows: Rows) -> None:
    bundle = trained(run, rows(300), "gbdt", columns="age price")
    assert bundle.warmup is not None
    assert bundle.warmup.num_rows == 64 and bundle.warmup.column_names == ["age", "price"]
    assert bundle.warmup["age"].to_pylist() == rows(300)["age"].head(64).to_list()
    assert trained(run, rows(300), "gbdt", columns="age price", warm_rows="5").warmup.num_rows == 5  # type: ignore[union-attr]
    assert trained(run, rows(300), "gbdt", columns="age price", warm_rows="0").warmup is None
    assert trained(run, rows(50), "gbdt", columns="age price", _batch="7").warmup.num_rows == 7  # type: ignore[union-attr]
