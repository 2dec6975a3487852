"""Fitted models as they score: a matrix goes in, probabilities come out; and how each is stored in open formats.

Files in a bundle: `trees.txt` (LightGBM text), `keys.parquet` (field i32, key u64, weight f64; sorted), and for trees
over keys `columns.parquet` (field, key: a key's place is its column). Numbers beside them stand in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from penstock import native
from penstock.registry.faults import BundleError
from penstock.training import trees
from penstock.training.faults import need_trees
from penstock.training.matrices import Keys, Matrix
from penstock.training.online_scorer import OnlineScorer, sigmoid
from penstock.training.sparse import Columns
from penstock.training.svm import Machine

Floats = npt.NDArray[np.float64]
Weights = Sequence[tuple[npt.NDArray[np.uint64], Floats]]

TREES, KEYS, COLUMNS = "trees.txt", "keys.parquet", "columns.parquet"


class Scorer(Protocol):
    """A fitted model. Scoring a row gives the same bits in any batch and at any number of threads."""

    def scores(self, matrix: Matrix, threads: int) -> Floats:
        """(rows,) probabilities of label 1."""

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write files; return what the manifest holds."""


@dataclass(frozen=True)
class Fit:
    """A fitted scorer, what is to be said about the fit in numbers, and sections for the report."""

    scorer: Scorer
    numbers: Mapping[str, float | int | None]
    sections: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class TreeScorer:
    """score = sigmoid(sum of leaf values + bias + sum of key weights); `keys` empty for plain trees.

    `columns`: where the trees split on keys instead of numbers. `foreign`: a LightGBM model that others trained, whose
    score is its own objective's rather than the sigmoid's.
    """

    text: str
    keys: Weights = ()
    bias: float = 0.0
    columns: Columns | None = None
    foreign: bool = False

    @cached_property
    def booster(self) -> Any:
        need_trees()
        import lightgbm as lgb

        return lgb.Booster(model_str=self.text)

    @cached_property
    def tables(self) -> Sequence[native.KeyTable]:
        return _tables(self.keys)

    def scores(self, matrix: Matrix, threads: int) -> Floats:
        x = self.columns.csr(matrix.slots) if self.columns is not None else matrix.numbers
        if self.foreign:
            return self._own_scores(x)
        margins = trees.margins(self.booster, x, threads) if matrix.rows else np.zeros(0)
        return sigmoid(_add_keys(margins + self.bias, self.tables, matrix.slots))

    def _own_scores(self, x: Any) -> Floats:
        found = np.asarray(self.booster.predict(x, num_threads=1), np.float64) if len(x) else np.zeros(0)
        if found.ndim > 1:
            said = f"the model gives {found.shape[1]} probabilities a row, and predict adds one score"
            raise BundleError(said, "serve it: its output is 'probabilities'", "TRAIN013")
        return found

    def save(self, folder: Path) -> Mapping[str, Any]:
        (folder / TREES).write_text(self.text, encoding="utf-8")
        if self.keys:
            _save_weights(folder / KEYS, self.keys)
        if self.columns is not None:
            _save_columns(folder / COLUMNS, self.columns)
        return {"form": "trees", "bias": self.bias, "fields": len(self.keys), "over_keys": self.columns is not None}

    @staticmethod
    def load(folder: Path, stored: Mapping[str, Any], fields: int) -> TreeScorer:
        keys = _load_weights(folder / KEYS, stored["fields"]) if stored["fields"] else ()
        columns = _load_columns(folder / COLUMNS, fields) if stored["over_keys"] else None
        return TreeScorer(
            (folder / TREES).read_text(encoding="utf-8"),
            keys,
            float(stored["bias"]),
            columns,
            stored.get("link") == "model",
        )


@dataclass(frozen=True)
class MachineScorer:
    """score = sigmoid(a x margin + b), with the machine's margin and Platt's a and b."""

    machine: Machine
    numbers: Sequence[str]

    @cached_property
    def tables(self) -> Sequence[native.KeyTable]:
        return _tables(self.machine.keys)

    def scores(self, matrix: Matrix, threads: int) -> Floats:
        margins = self.machine.number_margins(matrix.numbers)
        margins = _add_keys(margins, self.tables, matrix.slots)
        a, b = self.machine.platt
        return sigmoid(a * margins + b)

    def save(self, folder: Path) -> Mapping[str, Any]:
        machine = self.machine
        _save_weights(folder / KEYS, machine.keys)
        numbers = zip(self.numbers, machine.means, machine.scales, machine.number_weights, strict=True)
        return {
            "form": "svm",
            "bias": machine.bias,
            "c": machine.c,
            "platt": list(machine.platt),
            "fields": len(machine.keys),
            "numbers": [{"name": n, "mean": float(m), "scale": float(s), "weight": float(w)} for n, m, s, w in numbers],
        }

    @staticmethod
    def load(folder: Path, stored: Mapping[str, Any]) -> MachineScorer:
        numbers = stored["numbers"]
        a, b = stored["platt"]
        weights, means, scales = (np.array([n[w] for n in numbers], np.float64) for w in ("weight", "mean", "scale"))
        keys = tuple(_load_weights(folder / KEYS, stored["fields"]))
        machine = Machine(float(stored["bias"]), weights, means, scales, keys, (float(a), float(b)), float(stored["c"]))
        return MachineScorer(machine, [n["name"] for n in numbers])


def load_scorer(folder: Path, stored: Mapping[str, Any], fields: int) -> Scorer:
    """The scorer that `save` wrote; `fields` as the encoder has them. Raises ValueError for an unknown form."""
    if stored["form"] == "trees":
        return TreeScorer.load(folder, stored, fields)
    if stored["form"] == "svm":
        return MachineScorer.load(folder, stored)
    if stored["form"] == "online":
        return OnlineScorer.load(folder, stored)
    if stored["form"] == "deep":
        from penstock.training.deep.scorer import DeepScorer

        return DeepScorer.load(folder, stored)
    if stored["form"] == "onnx":
        from penstock.training.graphs import GraphScorer

        return GraphScorer.load(folder, stored)
    raise ValueError(f"a model of the unknown form {stored['form']!r}")


def _tables(weights: Weights) -> Sequence[native.KeyTable]:
    # Made whole before anybody sees it: batches are scored by several threads at once.
    return [native.KeyTable(pa.array(keys), pa.array(own)) for keys, own in weights]


def _add_keys(margins: Floats, tables: Sequence[native.KeyTable], slots: Sequence[Keys]) -> Floats:
    if not tables:
        return margins
    total = pa.array(margins)
    for table, slot in zip(tables, slots, strict=True):
        values = pa.array(slot.values) if slot.values is not None else None
        total = table.add(pa.array(slot.offsets), pa.array(slot.keys), total, values)
    found: Floats = total.to_numpy(zero_copy_only=False)
    return found


def _save_weights(path: Path, weights: Weights) -> None:
    columns = {
        "field": np.repeat(np.arange(len(weights), dtype=np.int32), [len(k) for k, _ in weights]),
        "key": np.concatenate([k for k, _ in weights] or [np.zeros(0, np.uint64)]),
        "weight": np.concatenate([w for _, w in weights] or [np.zeros(0)]),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _load_weights(path: Path, fields: int) -> Weights:
    table = pq.read_table(path)
    field_of, keys, weights = (table[name].to_numpy() for name in ("field", "key", "weight"))
    bounds = np.searchsorted(field_of, np.arange(fields + 1))
    return tuple((keys[a:b], weights[a:b]) for a, b in pairwise(bounds))


def _save_columns(path: Path, columns: Columns) -> None:
    field_of = np.repeat(np.arange(len(columns.keys), dtype=np.int32), [len(k) for k in columns.keys])
    pq.write_table(pa.table({"field": field_of, "key": np.concatenate(columns.keys)}), path, compression="zstd")


def _load_columns(path: Path, fields: int) -> Columns:
    table = pq.read_table(path)
    keys = table["key"].to_numpy()
    bounds = np.searchsorted(table["field"].to_numpy(), np.arange(fields + 1))
    return Columns(tuple(keys[a:b] for a, b in pairwise(bounds)))
