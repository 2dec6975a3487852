"""A user's own optimizer, a numba cfunc over a batch of rows, against the built-in one that it copies.

Updates of present rows of 16 values in a table of a million (--quick: 100,000), batches of 4,096 keys by Zipf's law
(1.05), on one core: keys per second of processor time. Cases: `sgd`, `rowwise` (row-wise Adagrad). Both tables must
have the same values before they are timed. At a ratio of .77 a user's function takes 1.3 times as long as the built-in.
"""

from __future__ import annotations

import os

# Before numpy is imported: one core.
os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import time
from collections.abc import Callable, Mapping
from typing import Any

import harness
import numba
import numpy as np

import penstock
from penstock.training.tables import Constant, EmbeddingTables, RowwiseAdagrad, Sgd, Table
from penstock.training.user_steps import optimizer

DIM, RATE, BATCH, EXPONENT = 16, 0.01, 4096, 1.05
BATCHES = 64


def own_sgd(n: Any, rows: Any, state: Any, grads: Any, context: Any) -> None:
    here = numba.carray(context, 1)[0]
    dim, rate = here.dim, here.learning_rate
    for i in range(n):
        row = rows[i]
        for j in range(dim):
            row[j] -= rate * grads[i * dim + j]


def own_rowwise(n: Any, rows: Any, state: Any, grads: Any, context: Any) -> None:
    here = numba.carray(context, 1)[0]
    dim = here.dim
    for i in range(n):
        row, sums = rows[i], state[i]
        squares = np.float32(0)
        for j in range(dim):
            squares += grads[i * dim + j] ** 2
        sums[0] += squares / np.float32(dim)
        rate = here.learning_rate / (np.sqrt(sums[0]) + np.float32(1e-8))
        for j in range(dim):
            row[j] -= rate * grads[i * dim + j]


CASES = {
    "sgd": (optimizer(own_sgd), Sgd()),
    "rowwise": (optimizer(own_rowwise, state=1), RowwiseAdagrad()),
}


def main() -> None:
    options = harness.arguments(__doc__)
    rows, seconds = (100_000, 0.3) if options.quick else (1_000_000, 0.6)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rng = np.random.default_rng(1)
    summed = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -EXPONENT)
    names = rng.permutation(rows) * 2_654_435_761
    batches = [names[np.searchsorted(summed, rng.random(BATCH) * summed[-1])] for _ in range(BATCHES)]
    grads = rng.normal(0, 0.01, (BATCH, DIM)).astype(np.float32)

    def filled(of: Any) -> EmbeddingTables:
        tables = EmbeddingTables([Table("t", DIM, of, RATE, Constant(0.1))], {"s": "t"}, threads=1)
        for part in np.array_split(names, max(1, rows // 65_536)):
            tables.update("s", part, np.full((len(part), DIM), 0.01, dtype=np.float32))
        return tables

    def measured(which: int) -> Callable[[], Mapping[str, float]]:
        return lambda: {case: rate(tables[which], batches, grads, seconds) for case, tables in made.items()}

    made = {case: tuple(map(filled, both)) for case, both in CASES.items()}
    for ours, theirs in made.values():
        for tables in (ours, theirs):
            tables.update("s", batches[0], grads)
        np.testing.assert_allclose(ours.lookup("s", names), theirs.lookup("s", names), rtol=1e-4, atol=1e-6)
    rounds = harness.alternate({"ours": measured(0), "built_in": measured(1)}, options.rounds)
    found = harness.document("table_user", "keys/s", rounds, {"built_in": penstock.__version__}, rows=rows, dim=DIM)
    harness.finish(found, options)


def rate(tables: EmbeddingTables, batches: list[Any], grads: Any, seconds: float) -> float:
    number, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        tables.update("s", batches[number % len(batches)], grads)
        number += 1
    return number * BATCH / (time.process_time() - started)


if __name__ == "__main__":
    main()
