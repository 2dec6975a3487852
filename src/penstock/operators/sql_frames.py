"""What the clauses of a query do to a Polars frame, once their expressions are worked out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.data.schema import Schema
from penstock.operators.expressions import Expr, check, columns_of, to_polars
from penstock.operators.join_keys import polars_type

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Key:
    """One key of an ordering over a relation's frame."""

    expr: Expr
    descending: bool
    nulls_first: bool


def selected(frame: pl.LazyFrame, entries: Mapping[str, Expr], schema: Schema) -> pl.LazyFrame:
    """The entries of a select list, in place of the frame's columns."""
    made = [to_polars(expr, schema).alias(name) for name, expr in entries.items()]
    if any(columns_of(expr) for expr in entries.values()):
        return frame.select(made)
    return frame.with_columns(made).select(list(entries))  # constants take the frame's length


def ordered(frame: pl.LazyFrame, order: Sequence[Key], schema: Schema) -> pl.LazyFrame:
    """The frame in the order of the keys, stable; a categorical column goes by its strings."""
    import polars as pl
    import pyarrow as pa

    if not order:
        return frame
    by = []
    for key in order:
        type_ = check(key.expr, schema)[0]
        coded = type_ is not None and pa.types.is_dictionary(type_)
        by.append(to_polars(key.expr, schema).cast(pl.String) if coded else to_polars(key.expr, schema))
    return frame.sort(
        by,
        descending=[key.descending for key in order],
        nulls_last=[not key.nulls_first for key in order],
        maintain_order=True,
    )


def brought_to(side: pl.LazyFrame, names: Sequence[tuple[str, str]], schema: Schema) -> pl.LazyFrame:
    """One side of a union: its columns (old name, new name) in the types of the whole."""
    import polars as pl

    made = []
    for old, new in names:
        column = schema.get(new)
        type_ = column.type if column else None
        made.append(pl.col(old).alias(new) if type_ is None else pl.col(old).cast(polars_type(type_)).alias(new))
    return side.select(made)
