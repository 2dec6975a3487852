"""The rows of embedding tables as batches of columns, wherever they are: live, in a checkpoint, in a snapshot.

Rows come by their mixed hash (`docs/adr/0030-embedding-table.md`: 4,096 buckets), a range of buckets at a time, so
memory is bounded and two sources can be walked side by side: a range holds the same keys in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from penstock import native
from penstock.errors import RequestError, did_you_mean
from penstock.training.artefacts import read_recorded, told
from penstock.training.snapshots import Snapshot
from penstock.training.tables import EmbeddingTables, Keys, Values

BUCKETS = 4096
#: Rows that a batch is meant to have.
BATCH_ROWS = 1 << 16

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class RowBatch:
    """Rows of one table. keys: int64 [n]; values: float32 [n, dim]; the rest is None where the source has only values.

    state: float32 [n, width of the optimizer's state]; counts, last_seen_s: uint32 [n]; scores: float32 [n], zeros in a
    table without one.
    """

    keys: Keys
    values: Values
    state: Values | None = None
    counts: Words | None = None
    last_seen_s: Words | None = None
    scores: Values | None = None


@dataclass(frozen=True)
class TableFacts:
    """What a table is. `optimizer` is "" and `state` empty where only values are kept; `slots`: who reads it."""

    name: str
    dim: int
    dtype: str
    rows: int
    slots: tuple[str, ...]
    #: Its keys are a feature plan's without the slot, their low 52 bits.
    mapped: bool
    optimizer: str = ""
    state: tuple[tuple[str, int], ...] = ()
    #: Rows have a decayed score.
    scored: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's values and state."""
        return self.dim * (4 if self.dtype == "f32" else 2) + 4 * sum(width for _, width in self.state)


class RowSource(Protocol):
    """Tables whose rows can be walked. `what`: snapshot, checkpoint or tables; `plan`: what was recorded as it."""

    @property
    def what(self) -> str: ...
    @property
    def plan(self) -> str: ...
    @property
    def tables(self) -> Sequence[TableFacts]: ...
    def rows_in(self, table: int, first: int, end: int) -> RowBatch:
        """The rows of a table's buckets `first` to `end`."""
        ...


def batches(source: RowSource, table: int, buckets: int | None = None) -> Iterator[RowBatch]:
    """A table's rows, `buckets` of the 4,096 at a time: by default about `BATCH_ROWS` rows."""
    step = buckets or buckets_a_batch(source.tables[table].rows)
    for first in range(0, BUCKETS, step):
        yield source.rows_in(table, first, min(first + step, BUCKETS))


def buckets_a_batch(rows: int) -> int:
    return min(BUCKETS, max(1, BATCH_ROWS * BUCKETS // max(rows, 1)))


def number_of(source: RowSource, table: str) -> int:
    """Raises `RequestError` for a table that is not there."""
    names = [facts.name for facts in source.tables]
    if table not in names:
        raise RequestError(f"there is no table '{table}'", did_you_mean(table, names, f"there are {', '.join(names)}"))
    return names.index(table)


class LiveRows:
    """Of live tables, between two steps."""

    what, plan = "tables", ""

    def __init__(self, tables: EmbeddingTables) -> None:
        self._tables = tables

    @property
    def tables(self) -> Sequence[TableFacts]:
        found = []
        for number, table in enumerate(self._tables.tables):
            optimizer, state, scored = self._tables.native.shape(number)
            slots = tuple(slot for slot, of in self._tables.slots.items() if of == table.name)
            rows, mapped = self._tables.rows[table.name], self._tables.mapped
            facts = TableFacts(table.name, table.dim, table.dtype, rows, slots, mapped, optimizer, tuple(state), scored)
            found.append(facts)
        return found

    def rows_in(self, table: int, first: int, end: int) -> RowBatch:
        return _batch(self._tables.native.rows_in(table, first, end), self._tables.tables[table].dim)


class SnapshotRows:
    """Of a serving snapshot: values alone."""

    what = "snapshot"

    def __init__(self, path: Path) -> None:
        self.snapshot = Snapshot(path)
        self.path, self.plan = self.snapshot.path, self.snapshot.plan

    @property
    def tables(self) -> Sequence[TableFacts]:
        held = self.snapshot
        return [
            TableFacts(table.name, table.dim, table.dtype, table.rows, *_read_by(number, held.slots, held.native.slots))
            for number, table in enumerate(held.tables)
        ]

    def rows_in(self, table: int, first: int, end: int) -> RowBatch:
        with told():
            columns = self.snapshot.native.rows_in(table, first, end)
        return _batch(columns, self.snapshot.tables[table].dim)


class CheckpointRows:
    """Of the newest cut in a folder."""

    what = "checkpoint"

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder)
        with told(self.path):
            self._native = native.Checkpoint(str(folder))
        self.plan, names = read_recorded(self._native.plan)
        slots = self._native.slots
        named = [names[number] if number < len(names) else str(number) for number, _, _ in slots]
        self.tables: Sequence[TableFacts] = [
            TableFacts(name, dim, dtype, rows, *_read_by(number, named, slots), optimizer, tuple(state), scored)
            for number, (name, dim, dtype, rows, optimizer, state, scored, _, _) in enumerate(self._native.tables)
        ]

    def rows_in(self, table: int, first: int, end: int) -> RowBatch:
        with told(self.path):
            columns = self._native.rows_in(table, first, end)
        return _batch(columns, self.tables[table].dim)


def open_rows(path: Path) -> SnapshotRows | CheckpointRows:
    """The rows behind a path: a snapshot file, a folder of checkpoints (its newest cut), or the folder of a bundle that
    has either; of both, the checkpoint, which knows more.

    Raises `RequestError` where there is none, `ArtefactError` for one that is damaged or of another format.
    """
    path = Path(path)
    if path.is_file():
        return SnapshotRows(path)
    if not path.is_dir():
        raise RequestError(f"{path} is not there", "name a snapshot file, a folder of checkpoints, or a bundle")
    for folder in (path, path / "training"):
        if any(folder.glob("*.cut")):
            return CheckpointRows(folder)
    snapshots = sorted(path.glob("*.snapshot"))
    if len(snapshots) != 1:
        found = f"{len(snapshots)} snapshots: name one" if snapshots else "no checkpoint (*.cut) and no *.snapshot"
        raise RequestError(f"the folder {path} has {found}", "a bundle of a deep model has one in it")
    return SnapshotRows(snapshots[0])


def _read_by(table: int, names: Sequence[str], slots: Sequence[tuple[int, int, bool]]) -> tuple[tuple[str, ...], bool]:
    """The slots that read a table, and whether their keys are a feature plan's."""
    mine = [(name, mapped) for name, (_, of, mapped) in zip(names, slots, strict=True) if of == table]
    return tuple(name for name, _ in mine), bool(mine) and all(mapped for _, mapped in mine)


def _batch(columns: tuple[bytes, ...], dim: int) -> RowBatch:
    keys = np.frombuffer(columns[0], dtype=np.int64)
    values = np.frombuffer(columns[1], dtype=np.float32).reshape(len(keys), dim)
    if len(columns[3]) != 4 * len(keys):  # a snapshot's
        return RowBatch(keys, values)

    def of(column: bytes, kind: Any) -> Any:
        return np.frombuffer(column, dtype=kind)

    width = len(columns[2]) // 4 // len(keys) if len(keys) else 0
    state = of(columns[2], np.float32).reshape(len(keys), width)
    return RowBatch(
        keys, values, state, of(columns[3], np.uint32), of(columns[4], np.uint32), of(columns[5], np.float32)
    )
