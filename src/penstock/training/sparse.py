"""Key lists as one sparse matrix with numbered columns, for learners that want columns: trees and the SVM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock import native
from penstock.training.matrices import Keys


@dataclass(frozen=True)
class Columns:
    """The keys that are columns: field by field, ascending; their numbers run on."""

    keys: tuple[npt.NDArray[np.uint64], ...]

    @property
    def size(self) -> int:
        return sum(len(k) for k in self.keys)

    @staticmethod
    def of(slots: Sequence[Keys], threads: int, min_rows: int = 1) -> Columns:
        """Every key that stands in at least `min_rows` places."""
        found = []
        for slot in slots:
            distinct, places = native.compact_keys(pa.array(slot.keys), threads)
            counts = np.bincount(places.to_numpy(), minlength=len(distinct))
            found.append(distinct.to_numpy()[counts >= min_rows])
        return Columns(tuple(found))

    def entries(self, slots: Sequence[Keys]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], Any]:
        """(offsets, columns, f32 values) by row; keys that are no column drop out."""
        rows, columns, values = [], [], []
        first = 0
        for slot, known in zip(slots, self.keys, strict=True):
            at = np.searchsorted(known, slot.keys)
            at[at == len(known)] = 0
            hit = known[at] == slot.keys if len(known) else np.zeros(len(at), bool)
            rows.append(np.repeat(np.arange(slot.rows), np.diff(slot.offsets))[hit])
            columns.append((at[hit] + first).astype(np.uint32))
            values.append(slot.values[hit] if slot.values is not None else np.ones(int(hit.sum()), np.float32))
            first += len(known)
        count = slots[0].rows if slots else 0
        row = np.concatenate(rows)
        order = np.argsort(row, kind="stable")
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=count), out=offsets[1:])
        return offsets, np.concatenate(columns)[order], np.concatenate(values)[order]

    def csr(self, slots: Sequence[Keys]) -> Any:
        """A SciPy matrix of f32 (rows, size); a key twice in a row adds up."""
        from scipy.sparse import csr_matrix

        offsets, columns, values = self.entries(slots)
        matrix = csr_matrix((values, columns.astype(np.int64), offsets), shape=(len(offsets) - 1, self.size))
        matrix.sum_duplicates()
        return matrix
