"""What the serving host scores equals what `predict` scores: every form of model, a row at a time and many at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from penstock import native
from penstock.registry.runtime import onnxruntime_library
from penstock.serving.tensors import array_of, tensors_of
from penstock.training.bundle import Bundle, load

MODELS = [
    "gbdt_raw", "gbdt", "gbdt_lr", "svm", "svm_raw", "lr", "fm", "flat", "places", "wide_deep", "din",
]  # fmt: skip


def served(folder: Path) -> native.ServedModel:
    return native.ServedModel(str(folder), onnxruntime=str(onnxruntime_library() or ""))


def scores(model: native.ServedModel, frame: pl.DataFrame, broadcast: Sequence[str] = ()) -> np.ndarray:
    table = frame.to_arrow()
    ((name, shape, values),) = model.predict(tensors_of(table, model.inputs), list(broadcast))
    assert name == "score" and shape == [frame.height]
    return array_of((name, shape, values))


@pytest.mark.parametrize("name", MODELS)
def test_served_scores_are_predicts(trained: Path, fresh: pl.DataFrame, name: str) -> None:
    if not (trained / name).exists():
        pytest.skip("torch is not installed, so no deep model was trained")
    bundle: Bundle = load(trained / name)
    model = served(trained / name)
    expected = bundle.score(fresh)
    assert expected.std() > 0.01, "a model that says one thing proves nothing"
    np.testing.assert_allclose(scores(model, fresh), expected, rtol=0, atol=1e-6)
    one_by_one = np.concatenate([scores(model, fresh[at : at + 1]) for at in range(40)])
    np.testing.assert_allclose(one_by_one, expected[:40], rtol=0, atol=1e-6)
    few = scores(model, fresh[100:107])
    np.testing.assert_allclose(few, expected[100:107], rtol=0, atol=1e-6)
