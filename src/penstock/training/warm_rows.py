"""Rows for a host to warm up with, in the form in which it is asked: `warmup.parquet` of a bundle.

They are training data: of the columns that the model reads, labels and weights left out, and only as many as
`warm_rows` of the algorithm lets through.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.features import raw_rows
from penstock.features.plan import Plan
from penstock.operators.base import RunContext
from penstock.registry.bundles import WARMUP
from penstock.registry.faults import BundleError


def as_asked(rows: pa.Table) -> pa.Table:
    """Columns as requests hold them: numbers, texts, booleans, microseconds; lists as JSON, days as ISO texts.

    What a request cannot hold is left out: the host takes a column that is missing as null.
    """
    made = {name: _column(rows[name]) for name in rows.column_names}
    return raw_rows.bounded(pa.table({name: column for name, column in made.items() if column is not None}))


def of(own: Sequence[str], plan: Plan | None, first: pa.Table | None, context: RunContext) -> pa.Table | None:
    """The first rows of training in that form: what the plan reads, and what the model reads beside it (`own`)."""
    parts = [raw_rows.noted(plan, context)] if plan else []
    if first is not None and own:
        parts.append(first.select([name for name in own if name in first.column_names]))
    tables = [table for table in parts if table is not None]
    rows = min((table.num_rows for table in tables), default=0)
    columns = {name: table[name].slice(0, rows) for table in tables for name in table.column_names}
    return as_asked(pa.table(columns)) if rows else None


def write(rows: pa.Table | None, folder: Path) -> dict[str, Any] | None:
    """Store rows in a bundle; return what its manifest says of them. None, or no row: None."""
    if rows is None or not rows.num_rows or not rows.num_columns:
        return None
    pq.write_table(rows, folder / WARMUP, compression="zstd")
    return {"file": WARMUP, "rows": rows.num_rows}


def read(folder: Path, stored: Any) -> pa.Table | None:
    """The rows that `write` stored. Raises `BundleError` where the manifest names others."""
    if stored is None:
        return None
    if stored["file"] != WARMUP:
        raise BundleError(f"the warm-up rows of {folder} are in '{stored['file']}', not {WARMUP}", code="TRAIN010")
    return pq.read_table(folder / WARMUP)


def _column(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    for holds, wanted in _KINDS:
        if holds(kind):
            return column.cast(wanted or kind, safe=False)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if not _plain(kind.value_type):
            return None
        return pa.chunked_array([pa.array([_json(row) for row in column.to_pylist()], pa.string())])
    return None


_KINDS: tuple[tuple[Callable[[pa.DataType], bool], pa.DataType | None], ...] = (
    (pa.types.is_boolean, None),
    (pa.types.is_integer, None),
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_floating, None),
    (pa.types.is_decimal, pa.float64()),
    (pa.types.is_string, None),
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_string_view, pa.string()),
    (pa.types.is_timestamp, pa.timestamp("us")),
    (pa.types.is_date, pa.string()),
)


def _plain(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)
    return any(test(kind) for test in (*tests, pa.types.is_large_string, pa.types.is_string_view))


def _json(row: list[Any] | None) -> str | None:
    if row is None:
        return None
    return json.dumps([None if isinstance(v, float) and not math.isfinite(v) else v for v in row], ensure_ascii=False)
