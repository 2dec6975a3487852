"""Serving snapshots: the values of a model's rows in one mapped file, and look-ups in it without torch or training.

Header, contents and facts are verified when a snapshot is opened, a block of rows when it is first touched. The file
may only be replaced by a rename, which is what `write_snapshot` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock import native
from penstock.errors import RequestError, did_you_mean
from penstock.training.artefacts import ArtefactError, read_recorded, recorded, told
from penstock.training.tables import Bag, EmbeddingTables, Keys, Pooling, Values, slots_named


def write_snapshot(tables: EmbeddingTables, path: Path, *, plan: str = "", copy_limit_bytes: int = 1 << 30) -> int:
    """The values of all rows as file `path`, in place of any of that name once it is whole. Returns the rows.

    `plan` is recorded. Steps may go on in another thread meanwhile, at the price of copies up to `copy_limit_bytes`.
    Raises `ArtefactError` (TRAIN036 to TRAIN038); a file that was there before stays.
    """
    path = Path(path)
    with told(path.parent):
        return native.write_snapshot(
            str(path.parent), path.name, tables.native, recorded(plan, list(tables.slots)), copy_limit_bytes
        )


@dataclass(frozen=True)
class SnapshotTable:
    """One table of a snapshot. `dtype`: f32, f16 or bf16, as values are stored."""

    name: str
    dim: int
    dtype: str
    rows: int


class Snapshot:
    """An open snapshot: what `EmbeddingTables` looks up and pools, from a file. Threads may share it.

    `slots`: what the reader means to look up; one that the snapshot does not have raises `RequestError`. `dims` (a slot
    each) and `plan` are compared if given. `verify` reads every block now rather than when it is touched. Every look-up
    raises `ArtefactError` for a damaged block, naming file and block (TRAIN031); opening also for another format
    (TRAIN032), another dim (TRAIN033), another plan (TRAIN034) and a file that cannot be read (TRAIN037).
    """

    def __init__(
        self,
        path: Path,
        slots: Sequence[str] = (),
        *,
        dims: Mapping[str, int] | None = None,
        verify: bool = False,
        plan: str = "",
        threads: int = 0,
    ) -> None:
        self.path = Path(path)
        with told():
            self.native = native.Snapshot(str(path), threads or os.cpu_count() or 1)
        self.plan, names = read_recorded(self.native.plan)
        self.tables = tuple(SnapshotTable(*facts) for facts in self.native.tables)
        self._slots: dict[str, tuple[int, int]] = {}
        for number, table, _ in self.native.slots:
            self._slots[names[number] if number < len(names) else str(number)] = (number, table)
        for slot in slots:
            self._slot(slot)
        for slot, dim in (dims or {}).items():
            if self.dim(slot) != dim:
                text = f"{path}: slot '{slot}' has dim {self.dim(slot)} there and {dim} here"
                raise ArtefactError(text, "take the snapshot of this very model", "TRAIN033", str(path))
        if plan and plan != self.plan:
            text = f"{path} was written with plan '{self.plan}', and this is plan '{plan}'"
            raise ArtefactError(
                text, "keys mean other things there; use the plan it was made with", "TRAIN034", str(path)
            )
        if verify:
            self.verify()

    def __repr__(self) -> str:
        rows = ", ".join(f"{table.name}: {table.rows:,} rows" for table in self.tables)
        return f"Snapshot({self.path}: {rows})"

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(self._slots)

    def table(self, slot: str) -> SnapshotTable:
        return self.tables[self._slot(slot)[1]]

    def dim(self, slot: str) -> int:
        return self.table(slot).dim

    def lookup(self, slot: str, keys: Keys) -> Values:
        """The rows of `keys` (int64 [n]) as float32 [n, dim]; a key without a row reads what it read in training."""
        out = np.empty((len(keys), self.dim(slot)), dtype=np.float32)
        with told():
            self.native.lookup(self._slot(slot)[0], np.ascontiguousarray(keys), out)
        return out

    def pool(self, bags: Mapping[str, Bag], pooling: Pooling = "sum") -> Values:
        """Each slot's bags pooled, side by side in the order given: float32 [samples, sum of dims], with the bits of
        `EmbeddingTables.pool`."""
        given: list[Any] = [(self._slot(slot)[0], bag.keys, bag.offsets, bag.weights) for slot, bag in bags.items()]
        samples = max(len(given[0][2]) - 1, 0) if given else 0
        out = np.empty((samples, sum(map(self.dim, bags))), dtype=np.float32)
        with told(), slots_named(self.slots):
            self.native.pool(given, pooling, out)
        return out

    def rows(self, slot: str, bag: Bag) -> tuple[Values, npt.NDArray[np.bool_]]:
        """The rows of each sample's keys in order, padded with zeros: float32 [samples, longest, dim], and the mask
        [samples, longest]."""
        lengths = np.diff(bag.offsets)
        mask = np.arange(lengths.max(initial=0))[None, :] < lengths[:, None]
        padded = np.zeros((*mask.shape, self.dim(slot)), dtype=np.float32)
        padded[mask] = self.lookup(slot, bag.keys)
        return padded, mask

    def verify(self) -> None:
        """Read and check every block."""
        with told():
            self.native.verify()

    def _slot(self, slot: str) -> tuple[int, int]:
        found = self._slots.get(slot)
        if found is None:
            hint = did_you_mean(slot, list(self._slots), f"its slots are {', '.join(self._slots)}")
            raise RequestError(f"{self.path} has no slot '{slot}'", hint)
        return found
