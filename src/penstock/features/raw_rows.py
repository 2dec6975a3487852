"""A few raw rows kept beside a plan in the run store: what a model's host warms up with.

Columns that the plan reads and nothing else, at most `ROWS` rows and `BYTES` bytes: the first that it was applied to.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.data.atomic import write_bytes
from penstock.features.plan import Plan
from penstock.operators.base import RunContext

ROWS, BYTES = 64, 1 << 20
_FILE = "rows.parquet"


def wanted(plan: Plan, context: RunContext) -> bool:
    """Whether `note` would keep rows: none are there yet."""
    return bool(plan.columns) and not _place(plan, context).is_file()


def note(plan: Plan, rows: pa.Table, context: RunContext) -> None:
    """Keep the first of `rows` beside a kept plan."""
    if not rows.num_rows:
        return
    table = bounded(rows.select(list(plan.columns)))
    held = pa.BufferOutputStream()
    pq.write_table(table, held, compression="zstd")
    with suppress(OSError):  # a host without them warms up with a row of nulls
        write_bytes(_place(plan, context), held.getvalue().to_pybytes())


def noted(plan: Plan, context: RunContext) -> pa.Table | None:
    """The rows that `note` kept; None where there are none."""
    try:
        return pq.read_table(_place(plan, context))
    except (OSError, pa.ArrowException):
        return None


def bounded(rows: pa.Table) -> pa.Table:
    """As many of the first rows as are within both bounds; one row at least."""
    table = rows.slice(0, ROWS)
    while table.num_rows > 1 and table.nbytes > BYTES:
        table = table.slice(0, table.num_rows // 2)
    return table


def _place(plan: Plan, context: RunContext) -> Path:
    return context.plans / plan.fingerprint / _FILE
