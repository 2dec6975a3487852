"""Lazy frames over readers of our own: batches are read when something is written, and only the columns needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from penstock import native
from penstock.data.arrow_types import polars_schema

if TYPE_CHECKING:
    import polars as pl

#: Reads batches in order, given the columns that are needed (None: all).
Batches = Callable[[list[str] | None], Iterator[pa.RecordBatch]]
_SOURCE = "_penstock_source"


@dataclass(frozen=True)
class MappedBy:
    """A compiled feature plan to be applied where rows are read: `keep`, then features in this form."""

    kernel: native.Plan
    keep: tuple[str, ...]
    form: Literal["slots", "flat"]
    threads: int


@dataclass(frozen=True)
class Source:
    """What a frame's rows come from, for whoever takes them all as they are: Polars need not stand between.

    `mapped` reads the columns that are named and gives the batches that the plan makes of them; where it is given,
    `first` reads so many of the first rows as they are, beside everything else: nothing is counted, rejected or told.
    """

    batches: Batches
    mapped: Callable[[Sequence[str], MappedBy], Iterator[pa.RecordBatch]] | None = None
    first: Callable[[Sequence[str], int], pa.RecordBatch | None] | None = None

    def watched(self, see: Callable[[pa.RecordBatch], None]) -> Source:
        """The same, where `see` is shown what comes out."""

        def shown(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                see(batch)
                yield batch

        mapped = self.mapped
        return Source(
            lambda columns: shown(self.batches(columns)),
            None if mapped is None else lambda columns, mapping: shown(mapped(columns, mapping)),
            self.first,
        )

    def map(self, columns: Sequence[str], mapping: MappedBy) -> Iterator[pa.RecordBatch]:
        if self.mapped is not None:
            return self.mapped(columns, mapping)
        raw = self.batches(list(columns))
        return (mapping.kernel.apply(b, mapping.keep, mapping.form, mapping.threads) for b in raw)


def source_of(frame: pl.LazyFrame) -> Source | None:
    """The source of exactly this frame; None of one that Polars made out of others."""
    found: Source | None = getattr(frame, _SOURCE, None)
    return found


def with_source(frame: pl.LazyFrame, source: Source) -> pl.LazyFrame:
    """`frame`, whose rows `source` gives too: the same, in the same order."""
    setattr(frame, _SOURCE, source)
    return frame


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

    return with_source(register_io_source(source, schema=types, explain_name=name), Source(batches))
