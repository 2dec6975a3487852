"""XGBoost's boosters, by onnxmltools: trees in float32, as XGBoost itself computes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.registry.converting import onnx_graphs
from penstock.registry.converting.pickles import is_pickle, unpickle
from penstock.registry.converting.request import Request
from penstock.registry.converting.rows import MATRIX
from penstock.registry.converting.tensors import Feed, Tensor
from penstock.registry.faults import ConversionError

OPSET = 15


class XgboostOriginal:
    """`names`: the columns that the booster was trained with, each an input of its own; without them one matrix."""

    algorithm = "xgboost"
    library = "xgboost"
    precisions: Sequence[str] = ("FP32",)

    def __init__(self, request: Request) -> None:
        import xgboost as xgb

        path = Path(request.path)
        if path.suffix not in (".json", ".ubj") and is_pickle(path):
            model = unpickle(path, request.trust_pickle, "model.save_model('model.ubj')")
            self.booster = model.get_booster() if hasattr(model, "get_booster") else model
        else:
            self.booster = xgb.Booster()
            try:
                self.booster.load_model(path)
            except xgb.core.XGBoostError as error:
                said = str(error).strip().rpartition("\n")[2]
                raise ConversionError(f"{path} is no XGBoost model: {said}", code="REG015") from error
        learner = json.loads(self.booster.save_config())["learner"]
        self.objective = str(learner["objective"]["name"])
        self.classes = int(learner["learner_model_param"]["num_class"])
        self.width = int(self.booster.num_features())
        self.names = list(self.booster.feature_names or ())
        if "c" in (self.booster.feature_types or ()):
            said = "the XGBoost model was trained on categorical columns, which do not convert"
            raise ConversionError(said, "train it on numbers", "REG018")
        if self.objective.startswith(("rank:", "survival:", "multi:softmax")):
            said = f"XGBoost's objective {self.objective} does not convert"
            raise ConversionError(said, "binary:, reg: and multi:softprob do", "REG018")
        self.booster.feature_names = self.booster.feature_types = None  # onnxmltools wants f0, f1, ...

    def inputs(self, precision: str) -> Sequence[Tensor]:
        if self.names:
            return [Tensor(name, "FP32", (-1, 1)) for name in self.names]
        return [Tensor(MATRIX, "FP32", (-1, self.width))]

    def scores(self, feed: Feed) -> Feed:
        import xgboost as xgb

        x = np.hstack([feed[t.name].reshape(-1, t.width).astype(np.float32) for t in self.inputs("FP32")])
        found = np.asarray(self.booster.predict(xgb.DMatrix(x)))
        return {"probabilities" if found.ndim == 2 else "score": found}

    def convert(self, folder: Path, precision: str) -> Mapping[str, Any]:
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        try:
            model = convert_xgboost(
                self.booster, initial_types=[(MATRIX, FloatTensorType([None, self.width]))], target_opset=OPSET
            )
        except Exception as error:  # the converter raises whatever happens to it
            said = " ".join(str(error).split())[:300]
            raise ConversionError(f"onnxmltools cannot convert the booster: {said}", code="REG018") from error
        inputs = list(self.inputs(precision))
        if self.names:
            onnx_graphs.columns_in(model, MATRIX, inputs)
        classifies = len(model.graph.output) == 2
        output = model.graph.output[1 if classifies else 0].name
        many = self.classes > 2 or self.objective.startswith("multi:")
        name = "probabilities" if many else "score"
        score = onnx_graphs.score_out(model, output, classifies and not many, name)
        onnx_graphs.save(model, folder)
        return {"algorithm": "xgboost", "model": onnx_graphs.form(inputs, [score]), "outputs": [score]}


def load(request: Request) -> XgboostOriginal:
    return XgboostOriginal(request)
