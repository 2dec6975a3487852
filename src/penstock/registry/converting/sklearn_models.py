"""scikit-learn's estimators and pipelines, by skl2onnx: in float32, or in float64 where that is not near enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.registry.converting import onnx_graphs
from penstock.registry.converting.pickles import unpickle
from penstock.registry.converting.request import Request
from penstock.registry.converting.rows import MATRIX
from penstock.registry.converting.tensors import Feed, Tensor
from penstock.registry.faults import ConversionError

OPSET = {"": 18, "ai.onnx.ml": 3}
SAFELY = "skops.io.dump(model, 'model.skops'), or skl2onnx.to_onnx"


class SklearnOriginal:
    """`columns`: the names it was fitted with, each an input of its own; without them one matrix."""

    algorithm = "scikit-learn"
    library = "scikit-learn"
    precisions: Sequence[str] = ("FP32", "FP64")

    def __init__(self, request: Request, rows: pa.Table | None) -> None:
        path = Path(request.path)
        self.model = _skops(path) if path.suffix == ".skops" else unpickle(path, request.trust_pickle, SAFELY)
        if not hasattr(self.model, "predict"):
            said = f"{path} holds a {type(self.model).__name__}, which cannot predict"
            raise ConversionError(said, "save an estimator or a pipeline that ends in one", "REG018")
        names = getattr(self.model, "feature_names_in_", None)
        self.columns = [str(name) for name in names] if names is not None else []
        self.width = int(getattr(self.model, "n_features_in_", 0) or len(self.columns))
        self.texts = {n for n in self.columns if rows is not None and n in rows.column_names and _is_text(rows[n])}
        if not self.width:
            raise ConversionError(
                f"the {type(self.model).__name__} does not say how many columns it takes", code="REG018"
            )

    @property
    def method(self) -> str:
        ways = ("predict_proba", "decision_function", "predict")
        return next(way for way in ways if hasattr(self.model, way))

    def inputs(self, precision: str) -> Sequence[Tensor]:
        if self.columns:
            return [Tensor(name, "BYTES" if name in self.texts else precision, (-1, 1)) for name in self.columns]
        return [Tensor(MATRIX, precision, (-1, self.width))]

    def scores(self, feed: Feed) -> Feed:
        found = np.asarray(getattr(self.model, self.method)(self._frame(feed)))
        if self.method == "predict_proba" and found.shape[1] == 2:
            return {"score": found[:, 1]}
        return {"probabilities" if found.ndim == 2 else "score": found}

    def _frame(self, feed: Feed) -> Any:
        if not self.columns:
            return feed[MATRIX]
        import pandas as pd

        return pd.DataFrame({name: feed[name].reshape(-1) for name in self.columns})

    def convert(self, folder: Path, precision: str) -> Mapping[str, Any]:
        inputs = list(self.inputs(precision))
        pipeline = bool(self.columns) and _by_column(self.model)
        model = self._onnx(precision, pipeline)
        if self.columns and not pipeline:
            onnx_graphs.columns_in(model, MATRIX, inputs)
        classifies = self.method != "predict" and len(model.graph.output) == 2
        output = model.graph.output[1 if classifies else 0].name
        two = classifies and len(getattr(self.model, "classes_", ())) == 2 and self.method == "predict_proba"
        many = classifies and not two and len(getattr(self.model, "classes_", ())) != 2
        _null_branches(model, self.model)
        score = onnx_graphs.score_out(model, output, two, "probabilities" if many else "score")
        onnx_graphs.save(model, folder)
        return {"algorithm": "scikit-learn", "model": onnx_graphs.form(inputs, [score]), "outputs": [score]}

    def _onnx(self, precision: str, by_column: bool) -> Any:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

        number = FloatTensorType if precision == "FP32" else DoubleTensorType
        if by_column:
            types = [(n, (StringTensorType if n in self.texts else number)([None, 1])) for n in self.columns]
        else:
            types = [(MATRIX, number([None, self.width]))]
        options = {id(self.model): {"zipmap": False}} if self.method == "predict_proba" else None
        try:
            return to_onnx(self.model, initial_types=types, options=options, target_opset=OPSET)
        except Exception as error:  # skl2onnx raises kinds of its own, and whatever its converters do
            said = " ".join(str(error).split())[:300]
            raise ConversionError(
                f"skl2onnx cannot convert the {_name(self.model)}: {said}",
                "an estimator without a converter is served by exporting it to ONNX by hand",
                "REG018",
            ) from error


def load(request: Request, rows: pa.Table | None) -> SklearnOriginal:
    return SklearnOriginal(request, rows)


def _null_branches(model: Any, fitted: Any) -> None:
    """Let nulls take the branch in the graph's trees that they take in scikit-learn's, which skl2onnx leaves out."""
    last = fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
    found = getattr(last, "estimators_", [last])
    trees = [each.tree_ for each in np.ravel(found) if hasattr(each, "tree_")]
    for node in model.graph.node:
        if not trees or not node.op_type.startswith("TreeEnsemble"):
            continue
        given = {attribute.name: attribute.ints for attribute in node.attribute}
        places = list(zip(given["nodes_treeids"], given["nodes_nodeids"], strict=True))
        if {tree for tree, _ in places} != set(range(len(trees))):
            continue  # some other ensemble; the proof looks at its nulls
        flags = [tree.__getstate__()["nodes"]["missing_go_to_left"] for tree in trees]
        for attribute in list(node.attribute):
            if attribute.name == "nodes_missing_value_tracks_true":
                node.attribute.remove(attribute)
        onnx_graphs.set_ints(node, "nodes_missing_value_tracks_true", [int(flags[t][n]) for t, n in places])


def _by_column(model: Any) -> bool:
    """Whether the model takes its columns apart itself (a ColumnTransformer first)."""
    first = model.steps[0][1] if hasattr(model, "steps") else model
    return type(first).__name__ == "ColumnTransformer"


def _is_text(column: pa.ChunkedArray) -> bool:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _name(model: Any) -> str:
    steps = getattr(model, "steps", None)
    return " + ".join(type(step).__name__ for _, step in steps) if steps else type(model).__name__


def _skops(path: Path) -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise ConversionError(
            ".skops files need skops, which is not installed", "pip install skops", "REG018"
        ) from error
    unknown = skops.io.get_untrusted_types(file=path)
    if unknown:
        said = f"{path} holds types that skops does not know: {', '.join(map(str, unknown[:5]))}"
        raise ConversionError(said, "a pipeline of scikit-learn's own parts holds none", "REG019")
    return skops.io.load(path, trusted=[])
