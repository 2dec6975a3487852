"""What is in embedding tables, for a person: counts, histograms, the heaviest keys, how two artefacts differ.

Each function walks rows once, a range of buckets at a time, in bounded memory; results are plain values for JSON, and
`table_text.py` draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from penstock.errors import RequestError
from penstock.training.table_rows import (
    CheckpointRows,
    RowBatch,
    RowSource,
    SnapshotRows,
    TableFacts,
    batches,
    buckets_a_batch,
    number_of,
)

By = Literal["norm", "count"]
#: Below it a key of a feature plan is its value, above it the id of its slot.
SLOT_BITS = 52
#: Values of a row that are shown.
SHOWN = 4


class Meaning(Protocol):
    """What a plan knows of keys."""

    slots: Mapping[str, int]

    def text(self, slot: str, key: int) -> str:
        """What a key of a slot stands for, "" where only its hash is known."""
        ...


def stat(source: SnapshotRows | CheckpointRows, meaning: Meaning | None = None) -> dict[str, Any]:
    """Of each table: rows, bytes, rows a slot (None where slots share it and keys do not tell), histograms by powers of
    two of the rows' norms and, of a checkpoint, of their counts; norms of 0 have a line of their own."""
    return {
        "what": source.what,
        "path": str(source.path),
        "bytes": _bytes(source.path),
        "plan": source.plan,
        "rows": sum(facts.rows for facts in source.tables),
        "tables": [_table(source, number, facts, meaning) for number, facts in enumerate(source.tables)],
    }


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.glob("*.cut"))


def _table(source: RowSource, number: int, facts: TableFacts, meaning: Meaning | None) -> dict[str, Any]:
    norms, counts, slots = Counter[int](), Counter[int](), Counter[int]()
    zeros = broken = 0
    last_seen: tuple[int, int] | None = None
    for batch in batches(source, number):
        if not len(batch.keys):
            continue
        norm = norms_of(batch)
        broken += int((~np.isfinite(norm)).sum())
        zeros += int((norm == 0).sum())
        norms.update(np.frexp(norm[np.isfinite(norm) & (norm > 0)])[1].tolist())
        slots.update((batch.keys.view(np.uint64) >> np.uint64(SLOT_BITS)).tolist())
        if batch.counts is not None and batch.last_seen_s is not None:
            counts.update(np.frexp(batch.counts.astype(np.float64))[1].tolist())
            low, high = int(batch.last_seen_s.min()), int(batch.last_seen_s.max())
            last_seen = (min(low, last_seen[0]), max(high, last_seen[1])) if last_seen else (low, high)
    return {
        "name": facts.name,
        "dim": facts.dim,
        "dtype": facts.dtype,
        "optimizer": facts.optimizer,
        "rows": facts.rows,
        "bytes": facts.rows * facts.row_bytes,
        "slots": _slots(facts, slots, meaning),
        "zero_rows": zeros,
        "not_finite_rows": broken,
        "norms": [{"from": 2.0 ** (e - 1), "below": 2.0**e, "rows": norms[e]} for e in sorted(norms)],
        "counts": [
            {"from": 2 ** (e - 1) if e else 0, "below": 2**e if e else 1, "rows": counts[e]} for e in sorted(counts)
        ],
        "last_seen_s": list(last_seen) if last_seen else None,
    }


def _slots(facts: TableFacts, ids: Counter[int], meaning: Meaning | None) -> dict[str, int | None]:
    if len(facts.slots) == 1:
        return {facts.slots[0]: facts.rows}
    known = meaning.slots if meaning and not facts.mapped else {}
    return {slot: ids[known[slot]] if slot in known else None for slot in facts.slots}


def norms_of(batch: RowBatch) -> npt.NDArray[np.float64]:
    """Euclidean norms of the rows' values, [n]."""
    squares: npt.NDArray[np.float64] = np.einsum("nd,nd->n", batch.values, batch.values, dtype=np.float64)
    return np.sqrt(squares)


def head(
    source: RowSource, by: By = "norm", rows: int = 10, table: str = "", meaning: Meaning | None = None
) -> list[dict[str, Any]]:
    """The heaviest rows of a table (of all, each, where none is named): key, norm, count, text, first values.

    Raises `RequestError` for counts of a snapshot, which has none, or a table that is not there.
    """
    if by == "count" and source.what == "snapshot":
        raise RequestError("a snapshot has no counts", "use --by norm, or name a folder of checkpoints")
    numbers = [number_of(source, table)] if table else range(len(source.tables))
    found = []
    for number in numbers:
        facts = source.tables[number]
        best: list[dict[str, Any]] = []
        for batch in batches(source, number):
            if len(batch.keys):
                best = sorted(best + _heaviest(batch, by, rows, facts, meaning), key=_order(by))[:rows]
        found += best
    return found


def _order(by: By) -> Any:
    return lambda row: (-row[by], int(row["key"]))


def _heaviest(batch: RowBatch, by: By, rows: int, facts: TableFacts, meaning: Meaning | None) -> list[dict[str, Any]]:
    norms = np.nan_to_num(norms_of(batch), nan=np.inf)
    weights = norms if by == "norm" or batch.counts is None else batch.counts
    keys = batch.keys.view(np.uint64)
    # Ties by key, so that the same rows are shown each time.
    top = np.lexsort((keys, -weights.astype(np.float64)))[:rows]
    return [
        {
            "table": facts.name,
            **whose(int(keys[i]), facts, meaning),
            "norm": float(norms[i]),
            "count": int(batch.counts[i]) if batch.counts is not None else None,
            "last_seen_s": int(batch.last_seen_s[i]) if batch.last_seen_s is not None else None,
            "values": batch.values[i, :SHOWN].tolist(),
        }
        for i in top
    ]


def whose(key: int, facts: TableFacts, meaning: Meaning | None) -> dict[str, Any]:
    """A key as decimal text, its slot ("" where several share the table and the key does not tell) and its text."""
    slot = facts.slots[0] if len(facts.slots) == 1 else ""
    if not slot and meaning and not facts.mapped:
        ids = {number: name for name, number in meaning.slots.items()}
        slot = ids.get(key >> SLOT_BITS, "")
    return {"key": str(key), "slot": slot, "text": meaning.text(slot, key) if meaning and slot else ""}


def diff(ours: RowSource, theirs: RowSource, rows: int = 10, meaning: Meaning | None = None) -> dict[str, Any]:
    """How a second artefact differs from a first, table by table (by name): keys of only one, values that differ, how
    far rows moved (Euclidean distance), and those that moved furthest."""
    first, second = ({facts.name: facts for facts in source.tables} for source in (ours, theirs))
    return {
        "only_in_first": [name for name in first if name not in second],
        "only_in_second": [name for name in second if name not in first],
        "tables": [
            _differs(ours, theirs, first[name], second[name], rows, meaning) for name in first if name in second
        ],
    }


def _differs(
    ours: RowSource, theirs: RowSource, first: TableFacts, second: TableFacts, rows: int, meaning: Meaning | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": first.name, "rows": [first.rows, second.rows], "dims": [first.dim, second.dim]}
    if first.dim != second.dim:
        return found
    tally = Counter[str]()
    total = largest = 0.0
    best: list[dict[str, Any]] = []
    step = buckets_a_batch(max(first.rows, second.rows))
    numbers = number_of(ours, first.name), number_of(theirs, second.name)
    for a, b in zip(batches(ours, numbers[0], step), batches(theirs, numbers[1], step), strict=True):
        keys, at, bt = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
        tally.update(first=len(a.keys) - len(keys), second=len(b.keys) - len(keys))
        moves = norms_of(RowBatch(keys, b.values[bt] - a.values[at]))
        changed = (b.values[bt].view(np.uint32) != a.values[at].view(np.uint32)).any(axis=1)
        tally.update(same=int((~changed).sum()), changed=int(changed.sum()))
        total += float(moves.sum())
        largest = max(largest, float(moves.max(initial=0.0)))
        top = np.lexsort((keys.view(np.uint64), -moves))[:rows]
        moved = [
            {**whose(int(keys[i : i + 1].view(np.uint64)[0]), first, meaning), "move": float(moves[i])}
            for i in top
            if changed[i]
        ]
        best = sorted(best + moved, key=_order_of_moves)[:rows]
    return found | {
        "only_in_first": tally["first"],
        "only_in_second": tally["second"],
        "same": tally["same"],
        "changed": tally["changed"],
        "mean_move": total / tally["changed"] if tally["changed"] else 0.0,
        "largest_move": largest,
        "moves": best,
    }


def _order_of_moves(row: dict[str, Any]) -> tuple[float, int]:
    return -row["move"], int(row["key"])
