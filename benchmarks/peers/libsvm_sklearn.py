"""scikit-learn's side of the libsvm benchmark: `load_svmlight_file` and `dump_svmlight_file`, one question a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve

loaded: dict[str, Any] = {}


def setup(question: Mapping[str, Any]) -> str:
    return str(sklearn.__version__)


def answer(job: str, path: str, base: int = 0, to: str = "") -> Mapping[str, Any]:
    started = time.perf_counter()
    if job == "read":
        x, y = load_svmlight_file(path, dtype=np.float32, zero_based=base == 0)
        loaded[path] = (x, y)
        return {"seconds": time.perf_counter() - started}
    x, y = loaded[path]
    if job == "arrays":
        np.savez(to, indptr=x.indptr.astype(np.int64), indices=x.indices.astype(np.int64), values=x.data, labels=y)
        return {}
    dump_svmlight_file(x, y, to, zero_based=True)
    return {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    serve(setup, answer)
