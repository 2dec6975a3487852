"""River's side of the linear benchmark: learn_one over dictionaries, from the TSV or from rows in memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import river
from river import linear_model, optim

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import serve

held: dict[str, Any] = {}


def setup(question: Mapping[str, Any]) -> str:
    return str(river.__version__)


def read(text: str, most: int) -> list[tuple[dict[str, float], int]]:
    rows = []
    with Path(text).open() as lines:
        next(lines)
        for _, line in zip(range(most), lines, strict=False):
            label, *fields = line.rstrip("\n").split("\t")
            rows.append(({f"{i}={field}": 1.0 for i, field in enumerate(fields)}, int(label)))
    return rows


def answer(job: str, text: str, rows: int) -> Mapping[str, Any]:
    if job == "lr_cache" and text not in held:
        held[text] = read(text, rows)
    started = time.process_time()
    samples = held[text] if job == "lr_cache" else read(text, rows)
    model = linear_model.LogisticRegression(optim.AdaGrad(0.1), l2=0.0)
    for x, y in samples:
        model.predict_proba_one(x)
        model.learn_one(x, y)
    return {"seconds": time.process_time() - started, "rows": len(samples)}


if __name__ == "__main__":
    serve(setup, answer)
