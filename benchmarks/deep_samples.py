"""Samples with a known truth for benchmarks/deep.py: 26 slots of Zipf-like keys, 13 numbers, a label.

Two files hold the same samples in the same order: `ours` has 64-bit keys as a feature plan makes them (slot id in the
high bits, a hash below), `peers` has consecutive ids from 0 in each slot, which somebody else's pass over the data
would have had to assign. The first has no dictionary to be looked up, the second needs none: that is generous.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

SLOTS, DENSE = 26, 13
KEYS = [f"C{i}" for i in range(1, SLOTS + 1)]
NUMBERS = [f"I{i}" for i in range(1, DENSE + 1)]
ZIPF = 1.05
#: Slots come in sizes like Criteo's: each .7 of the one before.
SHRINK = 0.7
CHUNK = 1 << 18
ROW_GROUP = 1 << 16
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """`sizes`: distinct keys of each slot; `best_auc`: of the true probabilities over the held-out samples."""

    folder: Path
    sizes: list[int]
    train: int
    held: int
    best_auc: float

    def document(self, mine: bool) -> dict[str, Any]:
        form = "ours" if mine else "peers"
        return {
            "train": str(self.folder / f"train.{form}.parquet"),
            "held": str(self.folder / f"held.{form}.parquet"),
            "sizes": self.sizes,
            "train_samples": self.train,
        }


def slot_sizes(keys: int) -> list[int]:
    """How many of `keys` distinct keys each slot has; they sum to `keys`."""
    shares = SHRINK ** np.arange(SLOTS)
    sizes = np.maximum(4, (keys * shares / shares.sum()).astype(int))
    sizes[0] += keys - sizes.sum()
    return [int(size) for size in sizes]


def keys_of(slot: int, ids: Ids) -> Ids:
    """The ids of a slot (from 0) as a feature plan's keys: slot id << 52 | 52 bits of a hash (that of splitmix64)."""
    z = (ids.astype(np.uint64) | np.uint64(slot << 32)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z & np.uint64((1 << 52) - 1)) | np.uint64((slot + 1) << 52)).view(np.int64)


class _Truth:
    """The logit: a weight a key, products of the latent factors of some slots, numbers through a line and a bend."""

    def __init__(self, sizes: list[int], rng: np.random.Generator) -> None:
        self.weights = [rng.normal(0, 0.3, size).astype(np.float32) for size in sizes]
        self.factors = [rng.normal(0, 0.5, (size, 2)).astype(np.float32) for size in sizes]
        self.pairs = [(a, b) for a in range(8, SLOTS, 3) for b in range(a + 1, SLOTS, 5)]
        self.line = rng.normal(0, 0.15, DENSE).astype(np.float32)
        self.bend = rng.normal(0, 0.15, DENSE).astype(np.float32)

    def logits(self, ids: list[Ids], dense: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        z = dense @ self.line + np.abs(dense) @ self.bend - np.float32(1.3)
        for weights, at in zip(self.weights, ids, strict=True):
            z += weights[at]
        for a, b in self.pairs:
            z += np.float32(0.7) * (self.factors[a][ids[a]] * self.factors[b][ids[b]]).sum(1)
        return np.asarray(z, dtype=np.float32)


def generate(folder: Path, keys: int, train: int, held: int, seed: int = 7) -> Samples:
    """Write the train and held-out samples in both forms into `folder`."""
    rng = np.random.default_rng(seed)
    sizes = slot_sizes(keys)
    truth = _Truth(sizes, rng)
    best = 0.0
    for name, rows in (("train", train), ("held", held)):
        writers: dict[str, pq.ParquetWriter] = {}
        seen: list[tuple[Any, Any]] = []
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            ids = [_zipf(rng.random(count), size) for size in sizes]
            dense = rng.normal(0, 1, (count, DENSE)).astype(np.float32)
            logits = truth.logits(ids, dense)
            labels = (rng.random(count) < 1 / (1 + np.exp(-logits))).astype(np.float32)
            seen.append((labels, logits))
            shared = {"label": labels} | dict(zip(NUMBERS, np.ascontiguousarray(dense.T), strict=True))
            for form, columns in (
                ("ours", [keys_of(slot, at) for slot, at in enumerate(ids)]),
                ("peers", [at.astype(np.int32) for at in ids]),
            ):
                table = pa.table(shared | dict(zip(KEYS, columns, strict=True)))
                if form not in writers:
                    writers[form] = pq.ParquetWriter(folder / f"{name}.{form}.parquet", table.schema)
                writers[form].write_table(table, row_group_size=ROW_GROUP)
        for writer in writers.values():
            writer.close()
        best = auc(*(np.concatenate(column) for column in zip(*seen, strict=True)))
    return Samples(folder, sizes, train, held, best)


def _zipf(u: npt.NDArray[np.float64], size: int) -> Ids:
    """Ranks from 0 by the inverse of the continuous Zipf distribution on [1, size + 1)."""
    a = 1 - ZIPF
    return np.minimum(((1 + u * ((size + 1) ** a - 1)) ** (1 / a)).astype(np.int64) - 1, size - 1)


def auc(labels: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> float:
    """By ranks; ties count half."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    _, first, counts = np.unique(ordered, return_index=True, return_counts=True)
    ranks = np.repeat(first + (counts + 1) / 2, counts)
    positive = labels[order] > 0
    p = int(positive.sum())
    n = len(labels) - p
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n)) if p and n else float("nan")
