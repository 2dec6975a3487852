"""A regression or factorisation machine as it scores, and how it is stored.

In a bundle: `rows.parquet` with field i32 (-1: the bias, key 0, and the numbers, key 1 + place), key u64, w, z, s f32,
and for a factorisation machine t f32 and factors list<f32>[rank]. w and factors score; the rest continues the learning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from penstock import native
from penstock.training.faults import InputError
from penstock.training.matrices import Keys, Matrix

Floats = npt.NDArray[np.float64]

ROWS = "rows.parquet"
NUMBERS = -1
#: A standardised number beyond this counts as this: one wild value moves no weight far.
FARTHEST = 10.0
#: Places in a native row (crates/penstock-training/src/online/step.rs).
W, Z, S, T, FIRST = 0, 1, 2, 4, 5


@dataclass(frozen=True)
class Rates:
    """How a model learns; also what its rows mean. `rank` 0: a regression."""

    optimizer: str
    alpha: float
    beta: float
    l1: float
    l2: float
    rank: int = 0
    factor_alpha: float = 0.0
    factor_l2: float = 0.0
    spread: float = 0.0
    min_count: int = 1

    def trainer(
        self, *, slots: int, numbers: int, shared: bool, positions: bool, batch: int, seed: int, threads: int,
        evict_after: int = 0,
    ) -> native.Online:  # fmt: skip
        factors = (self.rank, self.factor_alpha, self.beta, self.factor_l2, self.spread) if self.rank else None
        return native.Online(
            slots=slots, numbers=numbers, shared=shared, positions=positions, optimizer=self.optimizer,
            rates=(self.alpha, self.beta, self.l1, self.l2), factors=factors, min_count=self.min_count,
            evict_after=evict_after, batch=batch, seed=seed, threads=threads,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class OnlineScorer:
    """score = sigmoid(bias + numbers (standardised) . w + key weights + second-order factors).

    `row_fields`, `row_keys`: (rows,); `row_values`: (rows, width) f32, as the native trainer lays them out.
    """

    rates: Rates
    numbers: Sequence[str]
    means: Floats
    scales: Floats
    shared: bool
    fields: int
    row_fields: npt.NDArray[np.int32]
    row_keys: npt.NDArray[np.uint64]
    row_values: npt.NDArray[np.float32]

    @cached_property
    def model(self) -> native.Online:
        # Every place of a list is a slot of its own here: the encoder has taken the list apart.
        model = self.rates.trainer(
            slots=self.fields,
            numbers=len(self.numbers),
            shared=self.shared,
            positions=False,
            batch=1,
            seed=0,
            threads=1,
        )
        model.put(pa.array(self.row_fields), pa.array(self.row_keys), pa.array(self.row_values.ravel()))
        return model

    def scores(self, matrix: Matrix, threads: int) -> Floats:
        numbers = scaled(matrix.numbers, self.means, self.scales) if len(self.numbers) else np.zeros(0, np.float32)
        slots = [to_native(keys) for keys in matrix.slots]
        margins = self.model.margins(slots, pa.array(numbers.ravel()), matrix.rows, max(1, threads))
        return sigmoid(margins.to_numpy(zero_copy_only=False))

    def save(self, folder: Path) -> Mapping[str, Any]:
        values, rank = self.row_values, self.rates.rank
        columns: dict[str, Any] = {
            "field": self.row_fields, "key": self.row_keys, "w": values[:, W], "z": values[:, Z], "s": values[:, S],
        }  # fmt: skip
        if rank:
            columns["t"] = values[:, T]
            flat = pa.array(np.ascontiguousarray(values[:, FIRST : FIRST + rank]).ravel())
            columns["factors"] = pa.FixedSizeListArray.from_arrays(flat, rank)
        pq.write_table(pa.table(columns), folder / ROWS, compression="zstd")
        numbers = zip(self.numbers, self.means, self.scales, strict=True)
        return {
            "form": "online",
            "rates": asdict(self.rates),
            "missing": "zeros",
            "shared": self.shared,
            "fields": self.fields,
            "numbers": [{"name": n, "mean": float(m), "scale": float(s)} for n, m, s in numbers],
        }

    @staticmethod
    def load(folder: Path, stored: Mapping[str, Any]) -> OnlineScorer:
        rates = Rates(**stored["rates"])
        table = pq.read_table(folder / ROWS).combine_chunks()
        width = rates.trainer(
            slots=0, numbers=0, shared=True, positions=False, batch=1, seed=0, threads=1
        ).width  # the native layout's own word
        values = np.zeros((table.num_rows, width), np.float32)
        for name, place in (("w", W), ("z", Z), ("s", S), *([("t", T)] if rates.rank else [])):
            values[:, place] = table[name].to_numpy()
        if rates.rank:
            factors = table["factors"].combine_chunks()
            flat = (factors.chunk(0) if isinstance(factors, pa.ChunkedArray) else factors).flatten()
            values[:, FIRST : FIRST + rates.rank] = flat.to_numpy(zero_copy_only=False).reshape(-1, rates.rank)
        numbers = stored["numbers"]
        return OnlineScorer(
            rates, tuple(n["name"] for n in numbers), np.array([n["mean"] for n in numbers], np.float64),
            np.array([n["scale"] for n in numbers], np.float64), bool(stored["shared"]), int(stored["fields"]),
            table["field"].to_numpy(), table["key"].to_numpy(), values,
        )  # fmt: skip


def scaled(numbers: npt.NDArray[Any], means: Floats, scales: Floats) -> npt.NDArray[np.float32]:
    """(rows, columns) f32, standardised and clipped; what is missing counts as the mean."""
    found = (numbers.astype(np.float64) - means) / scales
    found = np.clip(found, -FARTHEST, FARTHEST)
    return np.where(np.isfinite(found), found, 0.0).astype(np.float32)


def to_native(keys: Keys) -> tuple[pa.Array, pa.Array, pa.Array | None]:
    """A column of key lists as the native trainer takes it. Raises `InputError` for an infinite weight."""
    if keys.values is not None and not np.isfinite(keys.values).all():
        raise InputError("a key's weight is infinite", "clip such weights, or leave the key out", "TRAIN015")
    values = pa.array(keys.values) if keys.values is not None else None
    return pa.array(keys.offsets), pa.array(keys.keys), values


def sigmoid(margins: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp(-m) = inf is the right limit: a score of 0
        return 1.0 / (1.0 + np.exp(-margins))
