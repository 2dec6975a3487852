"""`predict` with models that came in as ONNX: columns go to inputs by name, scores are the host's, misfits are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import penstock.models
from penstock import native
from penstock.errors import PenstockError
from penstock.registry import Version
from penstock.registry.runtime import onnxruntime_library
from penstock.serving.tensors import array_of, tensors_of
from penstock.training.bundle import Bundle, load

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

ROWS = 10_000
FLOW = """<flow xmlns="urn:penstock:flow:1" name="f"><node name="n">
  <input name="rows" type="parquet" path="rows.parquet"/>
  <input name="m" type="model" path="models:/m@live"/>
  <process name="one" type="predict" from="rows" model="models:/m/1" score="one"/>
  <process name="two" type="predict" from="one" model="m" score="two"/>
  <output name="scored" type="parquet" from="two" path="scored.parquet"/>
</node></flow>"""


pytestmark = pytest.mark.usefixtures("place")


def flow(*more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", "flow.xml", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def served(version: Version, frame: pl.DataFrame) -> np.ndarray:
    """As the host scores the same columns."""
    model = native.ServedModel(str(penstock.models.fetch(version.uri)), str(onnxruntime_library() or ""))
    return array_of(model.predict(tensors_of(frame.to_arrow(), model.inputs), ())[0]).astype(np.float64).reshape(-1)


def test_a_pushed_scikit_learn_model_predicts_in_a_flow_as_the_host_serves_it(place: Path) -> None:
    pytest.importorskip("skl2onnx")
    pandas, joblib = pytest.importorskip("pandas"), pytest.importorskip("joblib")
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    draw = np.random.default_rng(0)
    age, city = draw.normal(40, 9, ROWS), draw.choice(["lima", "oslo", "rome"], ROWS)
    label = (draw.random(ROWS) < 1 / (1 + np.exp((40 - age) / 9 - (city == "rome")))).astype(int)
    columns = make_column_transformer(
        (StandardScaler(), ["age", "visits"]), (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["city"])
    )
    frame = pandas.DataFrame({"age": age, "visits": draw.poisson(3, ROWS), "city": city})
    joblib.dump(make_pipeline(columns, HistGradientBoostingClassifier(max_iter=20)).fit(frame, label), "m.joblib")
    version = penstock.models.push("m", "m.joblib", rows=frame[:200], trust_pickle=True, aliases=["live"])

    rows = pl.from_pandas(frame).with_columns(pl.col("city").cast(pl.Categorical), label=label)
    rows.write_parquet("rows.parquet")
    Path("flow.xml").write_text(FLOW)
    done = flow()
    assert done.returncode == 0, done.stderr
    scored = pl.read_parquet("scored.parquet")
    assert scored.columns == [*rows.columns, "one", "two"] and scored["one"].dtype == pl.Float64
    wanted = served(version, rows)
    assert np.abs(scored["one"].to_numpy() - wanted).max() <= 1e-6 and np.ptp(wanted) > 0.3
    assert scored["one"].equals(scored["two"].alias("one"))

    rows.drop("age").write_parquet("rows.parquet")
    lacking = flow()
    assert lacking.returncode != 0 and "TRAIN013" in lacking.stderr and "reads 'age'" in lacking.stderr
    rows.with_columns(pl.lit("x").alias("age")).write_parquet("rows.parquet")
    wrong = flow()
    assert wrong.returncode != 0 and "TRAIN046 column 'age' is" in wrong.stderr and "takes FP" in wrong.stderr


# --- graphs of one node ---


def graph(
    nodes: list[Any], inputs: list[tuple[str, int, list[Any]]], outputs: list[tuple[str, int, list[Any]]]
) -> Bundle:
    ends = [[helper.make_tensor_value_info(*each) for each in side] for side in (inputs, outputs)]
    made = helper.make_graph(nodes, "g", *ends)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), "m.onnx")
    return load(penstock.models.push("g", "m.onnx", unproven=True).uri)


def summed() -> Bundle:
    """The sum of three numbers."""
    node = helper.make_node("ReduceSum", ["input", "axes"], ["score"], keepdims=0)
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[1])
    return graph([axes, node], [("input", TensorProto.FLOAT, ["rows", 3])], [("score", TensorProto.FLOAT, ["rows"])])


def test_a_matrix_comes_as_lists_and_a_null_number_is_nan() -> None:
    bundle = summed()
    lists = pl.DataFrame({"input": [[1.0, 2.0, 3.0], [4.0, 5.0, None]]}, schema={"input": pl.List(pl.Float64)})
    assert np.array_equal(bundle.score(lists), [6, np.nan], equal_nan=True)
    assert bundle.score(lists.cast({"input": pl.Array(pl.Float32, 3)}))[0] == 6
    assert bundle.score(lists.head(0)).shape == (0,)
    whole = np.arange(30_000).reshape(-1, 3)  # several blocks
    assert np.array_equal(bundle.score(pl.DataFrame({"input": whole})), whole.sum(axis=1))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"other": [1.0]}, "TRAIN013 the onnx model reads 'input', not among the columns"),
        ({"input": [1.0]}, "TRAIN046 column 'input' is double, and the model takes lists of 3 values"),
        ({"input": [[1.0, 2.0]]}, "TRAIN046 column 'input' holds lists of 3 values, but one is 2 long"),
        ({"input": [[1.0, 2.0, 3.0], None]}, "TRAIN046 column 'input' holds lists of 3 values, but one is null"),
        ({"input": [["a", "b", "c"]]}, "TRAIN046 column 'input' is .*string.*, and the model takes FP32"),
    ],
)
def test_columns_that_do_not_fit_are_told_by_name(rows: dict[str, Any], said: str) -> None:
    bundle = summed()
    with pytest.raises(PenstockError, match=said):
        bundle.score(pl.DataFrame(rows))


def test_inputs_of_whole_numbers_and_texts_hold_no_null_and_no_other_type() -> None:
    node = helper.make_node("Cast", ["visits"], ["score"], to=TensorProto.FLOAT)
    ends = [("visits", TensorProto.INT64, ["rows", 1])], [("score", TensorProto.FLOAT, ["rows", 1])]
    bundle = graph([node], *ends)
    assert bundle.score(pl.DataFrame({"visits": [1, 2]}, schema={"visits": pl.UInt8})).tolist() == [1, 2]
    with pytest.raises(PenstockError, match=r"TRAIN046 column 'visits' holds nulls \(1 of 2\), which INT64 cannot"):
        bundle.score(pl.DataFrame({"visits": [1, None]}))
    with pytest.raises(PenstockError, match="TRAIN046 column 'visits' is double, and the model takes INT64"):
        bundle.score(pl.DataFrame({"visits": [1.5]}))
    with pytest.raises(PenstockError, match=r"TRAIN046 column 'visits' is uint64, and the model takes INT64 \(.*\)"):
        bundle.score(pl.DataFrame({"visits": [1 << 63]}, schema={"visits": pl.UInt64}))


def test_a_model_of_several_numbers_a_row_is_for_the_host() -> None:
    node, wide = helper.make_node("Relu", ["x"], ["y"]), ["rows", 2]
    with pytest.raises(
        PenstockError, match=r"TRAIN013 the model gives 'y' \[-1, 2\], and predict adds one score a row"
    ):
        graph([node], [("x", TensorProto.FLOAT, wide)], [("y", TensorProto.FLOAT, wide)])


def test_rows_that_the_runtime_refuses_are_told() -> None:
    table = helper.make_node("Constant", [], ["table"], value_floats=[1.0, 2.0])
    ends = [("place", TensorProto.INT64, ["rows"])], [("score", TensorProto.FLOAT, ["rows"])]
    bundle = graph([table, helper.make_node("Gather", ["table", "place"], ["score"])], *ends)
    assert bundle.score(pl.DataFrame({"place": [1, 0]})).tolist() == [2, 1]
    with pytest.raises(PenstockError, match=r"TRAIN046 the model does not score the rows: .*Gather"):
        bundle.score(pl.DataFrame({"place": [9]}))


def test_a_bundle_that_is_saved_again_scores_the_same(place: Path) -> None:
    bundle, rows = summed(), pl.DataFrame({"input": [[1.0, 2.0, 3.0]]})
    bundle.save(place / "again")
    assert load(place / "again").score(rows).tolist() == bundle.score(rows).tolist() == [6]
