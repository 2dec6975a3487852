"""scikit-learn's side of the linear benchmark: SGDClassifier.partial_fit over hashed rows, one question a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from scipy.sparse import csr_matrix, load_npz, save_npz
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import SGDClassifier

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve

BITS = 22
BATCH = 4096


def setup(question: Mapping[str, Any]) -> str:
    return str(sklearn.__version__)


def hashed(text: str) -> tuple[csr_matrix, Any]:
    """The TSV's rows as hashed columns of ones: what reading raw text costs."""
    labels, rows = [], []
    with Path(text).open() as lines:
        next(lines)
        for line in lines:
            label, *fields = line.rstrip("\n").split("\t")
            labels.append(int(label))
            rows.append([f"{i}={field}" for i, field in enumerate(fields)])
    hasher = FeatureHasher(2**BITS, input_type="string", dtype=np.float32, alternate_sign=False)
    return hasher.transform(rows), np.array(labels)


def answer(job: str, text: str, cache: str) -> Mapping[str, Any]:
    if job == "prepare":
        x, y = hashed(text)
        save_npz(cache, x, compressed=False)
        np.save(cache + ".labels.npy", y)
        return {}
    started = time.process_time()
    x, y = hashed(text) if job == "lr_text" else (load_npz(cache), np.load(cache + ".labels.npy"))
    model = SGDClassifier(loss="log_loss", alpha=1e-6, random_state=0)
    for at in range(0, len(y), BATCH):
        model.partial_fit(x[at : at + BATCH], y[at : at + BATCH], classes=[0, 1])
    return {"seconds": time.process_time() - started, "rows": len(y)}


if __name__ == "__main__":
    serve(setup, answer)
