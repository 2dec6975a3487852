"""LightGBM's text model, kept as it is: the host runs it in f64, where float32 ONNX moves scores at thresholds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.registry.converting.request import Request
from penstock.registry.converting.rows import MATRIX
from penstock.registry.converting.tensors import Feed, Tensor
from penstock.registry.faults import ConversionError

FILE = "trees.txt"
_UNNAMED = re.compile(r"Column_\d+")


class LightgbmOriginal:
    """A booster with its own names of columns, or with one matrix where it was trained without."""

    algorithm = "lightgbm"
    library = "lightgbm"
    precisions: Sequence[str] = ("FP64",)

    def __init__(self, request: Request) -> None:
        import lightgbm as lgb

        lgb.register_logger(_Quiet())
        self.text = _text(Path(request.path), request.trust_pickle)
        try:
            self.booster = lgb.Booster(model_str=self.text)
        except (lgb.basic.LightGBMError, ValueError) as error:
            raise ConversionError(f"{request.path} is no LightGBM model: {error}", code="REG015") from error
        categories = re.search(r"^pandas_categorical:(.*)$", self.text, re.MULTILINE)
        if categories and json.loads(categories[1] or "null"):
            said = "the LightGBM model was trained on pandas categoricals, whose codes stand in no column of a request"
            raise ConversionError(
                said, "train on numbers, or with Penstock's gbdt, which keeps its dictionary", "REG018"
            )
        self.names = self.booster.feature_name()
        self.classes = self.booster.num_model_per_iteration()

    @property
    def named(self) -> bool:
        return not all(_UNNAMED.fullmatch(name) for name in self.names)

    def inputs(self, precision: str) -> Sequence[Tensor]:
        if self.named:
            return [Tensor(name, "FP64", (-1, 1)) for name in self.names]
        return [Tensor(MATRIX, "FP64", (-1, len(self.names)))]

    def scores(self, feed: Feed) -> Feed:
        x = np.hstack([feed[t.name].reshape(-1, t.width).astype(np.float64) for t in self.inputs("FP64")])
        found = np.asarray(self.booster.predict(x, num_threads=1), np.float64)
        return {"probabilities" if self.classes > 1 else "score": found}

    def convert(self, folder: Path, precision: str) -> Mapping[str, Any]:
        (folder / FILE).write_text(self.text, encoding="utf-8")
        inputs = self.inputs(precision)
        model = {"form": "trees", "bias": 0.0, "fields": 0, "over_keys": False, "link": "model"}
        layout: dict[str, Any] = {"numeric": [], "vectors": [], "categorical": [], "slots": [], "positions": False}
        widths = []
        if self.named:
            layout["numeric"] = list(self.names)
        else:
            layout["vectors"], widths = [MATRIX], [len(self.names)]
            model["input"] = {"name": MATRIX, "width": len(self.names)}
        shape = (-1, self.classes) if self.classes > 1 else (-1,)
        outputs = [Tensor("probabilities" if self.classes > 1 else "score", "FP32", shape)]
        encoder = {"layout": layout, "widths": widths, "places": 0}
        model |= {"inputs": [t.as_dict() for t in inputs], "outputs": [t.as_dict() for t in outputs]}
        return {"algorithm": "lightgbm", "model": model, "encoder": encoder, "outputs": outputs}


def load(request: Request) -> LightgbmOriginal:
    return LightgbmOriginal(request)


def _text(path: Path, trusted: bool) -> str:
    """The text model in a file, or in a pickle of a wrapper that may be opened."""
    from penstock.registry.converting.pickles import is_pickle, unpickle

    if not is_pickle(path):
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConversionError(f"{path} is no LightGBM text model: {error}", code="REG015") from error
    model = unpickle(path, trusted, "booster.save_model('model.txt')")
    booster = getattr(model, "booster_", model)
    return str(booster.model_to_string(num_iteration=booster.best_iteration or -1))


class _Quiet:
    def info(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...
