"""The point-in-time join: to each sample, what its entities' views told at its time. No leakage, in bounded memory.

A sample at time T sees its entity's events up to T, T included; of several at one time the one that the source has
later counts as the newest. What is older than the view's TTL is as if it had never been.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock import native
from penstock.errors import DataError, RequestError
from penstock.features.views import sources
from penstock.features.views.faults import told
from penstock.features.views.model import ARROW, View

if TYPE_CHECKING:
    import polars as pl

Progress = Callable[[str, int], None]


def point_in_time(
    samples: pl.LazyFrame,
    views: Sequence[View],
    target: Path,
    *,
    time: str,
    unit: str = "",
    scratch: Path | None = None,
    progress: Progress = lambda what, rows: None,
) -> pl.LazyFrame:
    """`samples` and the views' columns beside them, row by row in order, as a lazy frame.

    samples: has the key columns of every view's entity, and `time` (a timestamp, date, or a number of `unit`s: "s",
    "ms", "us"). Rows whose key or time is null get what an unknown entity has. target: a Parquet file that is written
    with the views' columns (int64, float64, str, bool; null where there is nothing; counts and sums are 0).
    scratch: where files as large as what is joined may lie for a while.

    Memory does not grow with the samples: it holds 1/128 of a view's events for each thread, and 2 million samples.
    Raises `RequestError` where two columns have one name, `DataError` where one is missing or of another type.
    """
    import polars as pl

    refuse_taken(samples.collect_schema().names(), views)
    keys = list(dict.fromkeys(name for view in views for name, _ in view.entity.keys))
    asked = samples.select(*(pl.col(name) for name in keys), sources.timed(samples, time, unit).alias("\x01time"))
    for view in views:
        sources.keyed(view, samples)  # raises where a key is of another type

    def batches() -> Iterator[pa.RecordBatch]:
        for part in asked.collect_batches(chunk_size=sources.BATCH_ROWS, maintain_order=True, engine="streaming"):
            yield from part.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()

    write(batches(), views, target, scratch, progress)
    return pl.concat([samples, pl.scan_parquet(target)], how="horizontal")


def refuse_taken(taken: Iterable[str], views: Sequence[View]) -> None:
    """Raises `RequestError` where two views, or a view and the samples, have a column of one name."""
    owners = dict.fromkeys(taken, "the samples")
    for view in views:
        for name in view.outputs:
            if name in owners:
                said = f"view '{view.name}' gives '{name}', which {owners[name]} have too"
                raise RequestError(said, "rename one of them", "VIEW012")
            owners[name] = f"view '{view.name}'"


def write(
    samples: Iterable[pa.RecordBatch], views: Sequence[View], target: Path, scratch: Path | None, progress: Progress
) -> int:
    """Writes the views' columns for each sample to a Parquet file; samples have keys and `\\x01time`. The rows."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="penstock-views-", dir=scratch) as folder, told():
        joiners = [native.ViewJoiner(view.native, Path(folder) / view.name) for view in views]
        rows = 0
        for batch in samples:
            for view, joiner in zip(views, joiners, strict=True):
                joiner.samples(_asking(view, batch))
            rows += batch.num_rows
            progress("samples", rows)
        for view, joiner in zip(views, joiners, strict=True):
            seen = 0
            for part in sources.read(view):
                joiner.events(part.rows)
                seen += part.rows.num_rows
                progress(f"events of {view.name}", seen)
        joined = [joiner.join() for joiner in joiners]
        schema = pa.schema([(name, ARROW[kind]) for view in views for name, kind in view.outputs.items()])
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for parts in zip(*joined, strict=True):
                columns = [column for part in parts for column in part.columns]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        return rows


def _asking(view: View, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A view's key columns and the time."""
    columns = []
    for name, kind in view.entity.keys:
        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.large_string())
        try:
            columns.append(column.cast(ARROW[kind]))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            said = f"key '{name}' is {column.type}, and entity '{view.entity.name}' says {kind}"
            raise DataError(said, "cast it before", "VIEW025") from None
    names = [name for name, _ in view.entity.keys]
    return pa.RecordBatch.from_arrays([*columns, batch.column("\x01time")], [*names, "\x01time"])
