"""A run of `lr` or `fm` in a process of its own, to be killed: `online_learning.py FOLDER TYPE VALID THREADS`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from penstock.training.inputs import Layout
from penstock.training.online import OnlineParameters
from penstock.training.online_fitting import Task, fit
from penstock.training.online_scorer import OnlineScorer, Rates

ROWS = 12_000
EVERY = 400


def samples(rows: int, seed: int) -> pl.DataFrame:
    """Two slots of keys with effects of their own, ever new keys, and a number."""
    draws = np.random.default_rng(seed)
    user, item = draws.integers(0, 300, rows), draws.integers(0, 100, rows)
    x = draws.normal(size=rows)
    effect = np.sin(user * 1.7) + np.sin(item * 3.1) + x
    label = (draws.random(rows) < 1 / (1 + np.exp(-effect))).astype(np.int64)
    users = [[int(u), 1_000 + i // 2] for i, u in enumerate(user)]
    return pl.DataFrame({"user": users, "item": [[int(i)] for i in item], "x": x, "label": label})


def batches(frame: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
    for part in frame.collect().iter_slices(1_000):
        yield from part.to_arrow().combine_chunks().to_batches()


def main(folder: Path, type_: str, valid: bool, threads: int) -> None:
    rank = 3 if type_ == "fm" else 0
    rates = Rates("ftrl", 0.1, 1.0, 0.01, 0.1, rank, 0.1, 1e-4, 0.05, 2 if rank else 1)
    parameters = OnlineParameters(rates, 3, 256, 5, threads, evict_after=4_000, checkpoint_every=EVERY)
    layout = Layout(numeric=("x",), slots=(("user", ""), ("item", "")))
    judged = samples(2_000, 1).lazy() if valid else None
    task = Task(samples(ROWS, 0).lazy(), judged, layout, "label", "", False, None, None)
    context: Any = SimpleNamespace(
        batches=batches, collect=lambda f: f.collect(), progress=lambda *told: None, kept=folder / "kept"
    )
    _, fitted = fit(task, parameters, context)
    scorer = fitted.scorer
    assert isinstance(scorer, OnlineScorer)
    said = np.array(sorted((name, str(value)) for name, value in fitted.numbers.items()))
    np.savez(folder / "staged.npz", said=said, fields=scorer.row_fields, keys=scorer.row_keys, values=scorer.row_values)
    (folder / "staged.npz").rename(folder / "done.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "valid", int(sys.argv[4]))
