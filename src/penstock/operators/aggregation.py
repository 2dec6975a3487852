"""Groups and their values, the same to the last bit at any number of threads.

Counts, extremes and sums of integers do not depend on the order of rows, so they stream. Everything else (sums and
means of floats, quantiles, ...) is computed over each group's values in the order of the rows, once the columns it
needs are in memory: adding floats in another order gives another result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.data.schema import Column, Schema

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from penstock.operators.expressions import Expr, Named

#: Aggregates whose result does not depend on the order of rows, whatever their argument.
_COUNTS = frozenset({"count", "count_if", "any", "every"})


def aggregated(found: pl.LazyFrame, by: Sequence[str], entries: Sequence[Named], schema: Schema) -> pl.LazyFrame:
    """A row a group, sorted by the grouping columns (nulls last); without `by` one row, even of no rows.

    The columns are `by`, then `entries`; a name that occurs in both stands once, where `entries` has it.
    """
    import polars as pl

    from penstock.operators.expressions import to_polars

    groups = groups_of(by, [entry.expr for entry in entries], schema)
    listed = {entry.name for entry in entries}
    computed = [to_polars(expr, groups.schema).alias(e.name) for e, expr in zip(entries, groups.exprs, strict=True)]
    return groups.over(found).select(*(pl.col(name) for name in by if name not in listed), *computed)


@dataclass(frozen=True)
class Groups:
    """A row a group, sorted: the grouping columns and the values of all aggregates, under names of their own.

    `schema` is of these rows; `exprs` are the given expressions over them: what stood in an aggregate is a column.
    """

    by: tuple[str, ...]
    before: Schema
    aggregates: Mapping[Expr, str]
    schema: Schema
    exprs: tuple[Expr, ...]

    def over(self, found: pl.LazyFrame) -> pl.LazyFrame:
        """The groups of a frame."""
        from penstock.operators.expressions import columns_of, to_polars

        by, schema = self.by, self.before
        values = [to_polars(expr, schema, by=by).alias(name) for expr, name in self.aggregates.items()]
        read = [column.name for expr in self.aggregates for column in columns_of(expr)]
        needed = list(dict.fromkeys([*by, *read]))
        narrow = found.select(needed) if needed else found
        if _streams(tuple(self.aggregates), by, schema):
            return _sorted(_values(narrow, by, values), by, schema)
        result = _values(narrow, by, values).collect_schema()

        def compute(frame: pl.DataFrame) -> pl.DataFrame:
            groups = _values(frame.rechunk().lazy(), by, values)
            return _sorted(groups, by, schema).collect(engine="in-memory")

        return narrow.map_batches(compute, schema=dict(result))


def groups_of(by: Sequence[str], exprs: Sequence[Expr], schema: Schema) -> Groups:
    """What grouping rows of `schema` by `by` gives, each distinct aggregate in `exprs` computed once. Pure."""
    from penstock.operators.expressions import check

    aggregates: dict[Expr, str] = {}
    outside = tuple(_outside(expr, aggregates) for expr in exprs)
    keys = [schema.get(name) or Column(name) for name in by]
    computed = [Column(name, check(expr, schema, by=by)[0]) for expr, name in aggregates.items()]
    return Groups(tuple(by), schema, aggregates, Schema((*keys, *computed)), outside)


def _outside(expr: Expr, aggregates: dict[Expr, str]) -> Expr:
    """The expression with a column in place of each aggregate, which is added to `aggregates`."""
    from penstock.operators.expressions import Call, is_aggregate, rebuilt
    from penstock.operators.expressions import Column as ColumnNode

    def instead(node: Expr) -> Expr | None:
        if isinstance(node, Call) and is_aggregate(Call(node.name, ())):
            return ColumnNode(aggregates.setdefault(node, f"\0{len(aggregates)}"), at=node.at)
        return None

    return rebuilt(expr, instead)


def _values(found: pl.LazyFrame, by: Sequence[str], values: Sequence[pl.Expr]) -> pl.LazyFrame:
    if not by:
        return found.select(values)
    return found.group_by(by).agg(values) if values else found.select(by).unique(maintain_order=True)


def _sorted(found: pl.LazyFrame, by: Sequence[str], schema: Schema) -> pl.LazyFrame:
    from penstock.operators.tables import ordered

    return found.sort([ordered(name, schema) for name in by], nulls_last=True) if by else found


def _streams(aggregates: Sequence[Expr], by: Sequence[str], schema: Schema) -> bool:
    floats = {column.name for column in schema if _floating(column.type)}
    # Of equal floats 0.0 and -0.0 the first row's stands for the group.
    return not floats & set(by) and all(_unordered(expr, schema, by) for expr in aggregates)


def _unordered(aggregate: Expr, schema: Schema, by: Sequence[str]) -> bool:
    import pyarrow as pa

    from penstock.operators.expressions import Call, check

    if not isinstance(aggregate, Call):
        return False
    type_, _ = check(aggregate, schema, by=by)
    if aggregate.name in ("min", "max"):
        return type_ is not None and not _floating(type_)
    return aggregate.name in _COUNTS or (aggregate.name == "sum" and type_ is not None and pa.types.is_integer(type_))


def _floating(type_: pa.DataType | None) -> bool:
    import pyarrow as pa

    return type_ is not None and bool(pa.types.is_floating(type_))
