"""Models of other frameworks: converted, proved row by row, refused by name; in a process that may do little."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

import penstock.models
from penstock.errors import PenstockError
from penstock.registry import Version, proof

lgb = pytest.importorskip("lightgbm")
joblib = pytest.importorskip("joblib")

ROWS = 200
X = np.random.default_rng(0).normal(size=(ROWS, 4))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


pytestmark = pytest.mark.usefixtures("place")


def push(path: str, rows: Any = X, **more: Any) -> Version:
    return penstock.models.push("m", path, rows=rows, **more)


def served(version: Version, feed: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    [scores] = proof.served(penstock.models.fetch(version.uri))(feed).values()
    return scores


def inputs(version: Version) -> list[tuple[str, str, list[int]]]:
    return [(i["name"], i["datatype"], i["shape"]) for i in version.signature["inputs"]]


def test_lightgbm_stays_its_own_text_in_f64(place: Path) -> None:
    stamps = X.copy()
    stamps[:, 0] = 1.7e15 + np.arange(ROWS)  # float32 cannot tell these apart
    booster = lgb.train({"objective": "binary", "verbose": -1}, lgb.Dataset(stamps, Y), 10)
    booster.save_model("m.txt")
    version = push("m.txt", stamps, framework_version=lgb.__version__)
    assert inputs(version) == [("input", "FP64", [-1, 4])]
    assert version.proof["rows"] == ROWS and version.proof["largest_difference"] < 1e-7, "a score goes out as f32"
    folder = penstock.models.fetch(version.uri)
    assert (folder / "trees.txt").read_text() == Path("m.txt").read_text()
    assert pq.read_table(folder / "warmup.parquet").num_rows == 64
    assert np.allclose(served(version, {"input": stamps}), booster.predict(stamps))


def test_named_columns_are_inputs_of_their_own(place: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, Y)
    joblib.dump(model, "m.joblib")
    version = push("m.joblib", frame, trust_pickle=True)
    assert inputs(version) == [(name, "FP32", [-1, 1]) for name in "abcd"]
    assert [o["name"] for o in version.signature["outputs"]] == ["score"]
    scores = served(version, {name: frame[[name]].to_numpy(np.float32) for name in "abcd"})
    assert scores.shape == (ROWS,) and np.allclose(scores, model.predict_proba(frame)[:, 1], atol=1e-5)


def test_nulls_take_the_branch_in_the_graph_that_they_take_in_the_forest(place: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(5, random_state=0).fit(X, Y)
    joblib.dump(model, "m.joblib")
    version = push("m.joblib", trust_pickle=True, framework="scikit-learn")
    assert (version.proof["added"], version.proof["refused_by_original"]) == (10, 0)
    null = np.full((1, 4), np.nan, np.float32)
    assert served(version, {"input": null}) == pytest.approx(model.predict_proba(null)[:, 1])


def test_xgboost_by_its_columns(place: Path) -> None:
    xgb = pytest.importorskip("xgboost")
    booster = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(X, Y, feature_names=list("abcd")), 5)
    booster.save_model("m.ubj")
    assert [name for name, _, _ in inputs(push("m.ubj"))] == list("abcd")
    ranker = xgb.train({"objective": "rank:ndcg"}, xgb.DMatrix(X, Y, qid=np.zeros(ROWS, int)), 2)
    ranker.save_model("r.json")
    with pytest.raises(PenstockError, match="REG018 XGBoost's objective rank:ndcg does not convert"):
        push("r.json")


def test_a_row_that_scores_otherwise_is_named_and_what_was_allowed_is_recorded(place: Path) -> None:
    from sklearn.linear_model import LinearRegression

    joblib.dump(LinearRegression().fit(X, X[:, 0] * 3), "m.joblib")
    with pytest.raises(PenstockError, match=r"REG020 (row \d+|the added row '.*'): the original's score is"):
        push("m.joblib", framework="sklearn", trust_pickle=True, tolerance=1e-30)
    unproven = push("m.joblib", framework="sklearn", trust_pickle=True, tolerance=1e-30, unproven=True)
    assert unproven.proof["unproven"] is True and unproven.proof["beyond_tolerance"] > 0
    assert unproven.number == 1, "what was refused made no version"


def test_without_rows_some_are_made_up_and_the_version_says_so(place: Path) -> None:
    lgb.train({"objective": "binary", "verbose": -1}, lgb.Dataset(X, Y), 3).save_model("m.txt")
    assert push("m.txt", None).proof["made_up"] is True


def test_rows_that_do_not_fit_are_told(place: Path) -> None:
    lgb.train({"objective": "binary", "verbose": -1}, lgb.Dataset(X, Y), 3).save_model("m.txt")
    with pytest.raises(PenstockError, match="REG016 the model takes 4 numbers a row, and the rows have 3"):
        push("m.txt", X[:, :3])


# --- what is not let in ---


class Program:
    """A pickle that runs a line of Python when it is opened."""

    def __init__(self, line: str) -> None:
        self.line = line

    def __reduce__(self) -> Any:
        return exec, (self.line,)


def test_a_pickle_is_not_opened_unless_it_is_trusted(place: Path) -> None:
    Path("m.pkl").write_bytes(pickle.dumps(Program(f"open({str(place / 'ran')!r}, 'w')")))
    with pytest.raises(PenstockError, match=r"REG019 .* is a pickle, which runs whatever program it holds"):
        push("m.pkl", framework="sklearn")
    assert not (place / "ran").exists()


def test_a_trusted_pickle_has_no_network_no_environment_and_no_way_to_end_us(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "t")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = (
            f"import os, socket\ntry:\n socket.create_connection(('127.0.0.1', {port}), 2)\n net = 'reached'\n"
            "except OSError:\n net = 'none'\n"
            f"open({str(place / 'said')!r}, 'w').write(net + ' ' + os.environ.get('SECRET_TOKEN', 'no token'))"
        )
        Path("m.pkl").write_bytes(pickle.dumps(Program(line)))
        with pytest.raises(PenstockError, match=r"REG018 .* holds a NoneType, which cannot predict"):
            push("m.pkl", framework="sklearn", trust_pickle=True)
    net, _, token = (place / "said").read_text().partition(" ")
    assert token == "no token"
    if os.geteuid() == 0:
        assert net == "none"
    Path("k.pkl").write_bytes(pickle.dumps(Program("import os; os.kill(os.getpid(), 9)")))
    with pytest.raises(PenstockError, match=r"REG015 converting .* failed: its process was ended by SIGKILL"):
        push("k.pkl", framework="sklearn", trust_pickle=True)


def test_onnx_with_strange_operators_outside_weights_or_a_fixed_batch_is_refused(place: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def model(node: Any, rows: int | str = "rows", weights: Any = ()) -> Any:
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [rows, 2]) for n in ("x", "y")]
        graph = helper.make_graph([node], "g", ends[:1], ends[1:], list(weights))
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    onnx.save(model(helper.make_node("Relu", ["x"], ["y"])), "good.onnx")
    good = push("good.onnx", X[:, :2].astype(np.float32))
    assert inputs(good) == [("x", "FP32", [-1, 2])] and good.manifest["model"]["form"] == "onnx"
    onnx.save(model(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")), "odd.onnx")
    with pytest.raises(PenstockError, match=r"REG017 .* the operator Gelu of the domain 'com.microsoft'"):
        push("odd.onnx", X[:, :2])
    onnx.save(model(helper.make_node("Relu", ["x"], ["y"]), 1), "fixed.onnx")
    with pytest.raises(PenstockError, match=r"REG017 .* its first axis is not any number of rows"):
        push("fixed.onnx", X[:, :2])
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    outside = model(helper.make_node("MatMul", ["x", "w"], ["y"]), weights=[weight])
    onnx.save(outside, "outside.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(PenstockError, match=r"REG017 .* keeps its weights in other files"):
        push("outside.onnx", X[:, :2])
    Path("broken.onnx").write_bytes(Path("good.onnx").read_bytes()[:40])
    with pytest.raises(PenstockError, match="REG015"):
        push("broken.onnx", X[:, :2])


def test_pytorch_weights_come_with_the_function_that_makes_their_module(place: Path) -> None:
    torch = pytest.importorskip("torch")
    made = "torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1), torch.nn.Sigmoid())"
    Path("net.py").write_text(f"import torch\n\ndef make():\n    return {made}\n")
    module = eval(made, {"torch": torch}).eval()
    torch.save(module.state_dict(), "m.pt")
    with pytest.raises(PenstockError, match=r"REG018 .* holds weights alone"):
        push("m.pt", X.astype(np.float32))
    version = push("m.pt", X.astype(np.float32), factory="net:make")
    assert inputs(version) == [("input", "FP32", [-1, 4])]
    given = X.astype(np.float32)
    assert np.allclose(served(version, {"input": given}), module(torch.from_numpy(given)).detach().numpy(), atol=1e-5)


def test_predict_scores_a_brought_in_booster_as_it_scores_itself(place: Path) -> None:
    import polars as pl

    from penstock.training.bundle import load

    booster = lgb.train(
        {"objective": "poisson", "verbose": -1}, lgb.Dataset(X, np.abs(X[:, 0]), feature_name=list("abcd")), 5
    )
    booster.save_model("m.txt")
    version = push("m.txt")
    frame = pl.DataFrame({name: X[:, at] for at, name in enumerate("abcd")})
    assert np.array_equal(load(version.uri).score(frame), booster.predict(X))
