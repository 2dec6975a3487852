"""Lazy frames over readers of our own: batches are read when something is written, and only the columns needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.data.arrow_types import polars_schema

if TYPE_CHECKING:
    import polars as pl

#: Reads batches in order, given the columns that are needed (None: all).
Batches = Callable[[list[str] | None], Iterator[pa.RecordBatch]]


def lazy_frame(schema: pa.Schema, batches: Batches, name: str) -> pl.LazyFrame:
    """A frame that streams `batches`. An error raised while reading reaches the one who executes it as it is."""
    import polars as pl
    from polars.io.plugins import register_io_source

    types = polars_schema(schema)

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        left = n_rows
        if left == 0:
            return
        for batch in batches(columns or None):
            frame = pl.DataFrame(batch)
            if columns:
                frame = frame.select(columns)
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if left == 0:
                return

    return register_io_source(source, schema=types, explain_name=name)
