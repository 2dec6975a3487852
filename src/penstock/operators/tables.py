"""The operators on whole tables: `union`, `sort`, `limit`, `aggregate`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, NonNegativeInt

from penstock.data.schema import Column, Info, Schema
from penstock.operators.base import CheckContext, Checked, Columns, Fault, Names, Process, Refs, RunContext
from penstock.operators.column_checks import comma_list, frame, repeated, typed, unknown
from penstock.operators.join_keys import polars_type, shared_type

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


_DIRECTION = re.compile(r"\s*(asc|desc)?\s*(?:nulls\s+(first|last))?\s*", re.IGNORECASE)


class Union(Process):
    """Puts frames one below the other, matching columns by name.

    Rows: all of the first frame's, then the next one's. Columns: the first frame's, then what others add; where a
    frame lacks a column its rows hold null. Types: integers widen, integers beside floats become f64, anything else
    must be equal. Errors: types that cannot be one column. Streams.
    """

    type: ClassVar[str] = "union"
    example: ClassVar[str] = '<process name="all" type="union" from="monday tuesday"/>'

    from_: Refs = Field(alias="from", description="the steps to put together")  # type: ignore[assignment]

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema, faults = _united(self.from_, [frame(inputs.get(r, Schema.unknown())) for r in self.from_])
        return Checked({"": schema}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        import polars as pl

        schemas = [frame(context.info(reference)) for reference in self.from_]
        united, _ = _united(self.from_, schemas)
        parts = []
        for reference, schema in zip(self.from_, schemas, strict=True):
            here = {c.name: c.type for c in schema}
            columns = []
            for column in united:
                dtype = None if column.type is None else polars_type(column.type)
                if column.name not in here:
                    columns.append(pl.lit(None, dtype=dtype).alias(column.name))
                elif dtype is None or here[column.name] == column.type:
                    columns.append(pl.col(column.name))
                else:
                    columns.append(pl.col(column.name).cast(dtype))
            parts.append(inputs[reference].select(columns))
        united_rows: pl.LazyFrame = pl.concat(parts)
        return united_rows


def _united(references: tuple[str, ...], schemas: list[Schema]) -> tuple[Schema, list[Fault]]:
    """The columns of a union, first seen first, and a fault for each whose types clash."""
    columns: dict[str, Column] = {}
    first: dict[str, str] = {}
    faults = []
    for reference, schema in zip(references, schemas, strict=True):
        for column in schema:
            known = columns.setdefault(column.name, column)
            source = first.setdefault(column.name, reference)
            shared, fits = _shared(known.type, column.type)
            if not fits:
                said = f"column '{column.name}' is {known.type} in '{source}' and {column.type} in '{reference}'"
                faults.append(Fault("OPER106", said, f"derive one with cast({column.name} as ...) before the union"))
            columns[column.name] = Column(column.name, shared, known.role or column.role)
    plans = {schema.plan for schema in schemas if schema.plan}
    plan = plans.pop() if len(plans) == 1 else ""
    return Schema(tuple(columns.values()), plan, open=any(schema.open for schema in schemas)), faults


def _shared(a: pa.DataType | None, b: pa.DataType | None) -> tuple[pa.DataType | None, bool]:
    if a is None or b is None:
        return None, True
    if a == b:
        return a, True
    shared = shared_type(a, b)
    return (shared, True) if shared is not None else (a, False)


class Sort(Process):
    """Puts rows in order.

    Stable: rows that compare equal keep their order. Strings order by bytes, false before true, NaN is the greatest
    number, nulls come last in either direction unless "nulls first" stands behind the column. Errors: columns without
    an order (lists, structs).
    Needs memory for the whole frame.
    """

    type: ClassVar[str] = "sort"
    example: ClassVar[str] = '<process name="ranked" type="sort" from="scored" by="score desc, user_id"/>'

    by: Columns = Field(description='columns, each with "desc" or "nulls first" behind it if wanted: "a desc, b"')

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = frame(inputs[self.from_])
        keys, faults = _keys(self.by)
        names = [name for name, _, _ in keys]
        faults += unknown(names, schema, "by") + typed(names, schema, "by", "ordered")
        return Checked({"": schema}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        keys, _ = _keys(self.by)
        schema = frame(context.info(self.from_))
        found: pl.LazyFrame = inputs[self.from_].sort(
            [ordered(name, schema) for name, _, _ in keys],
            descending=[falling for _, falling, _ in keys],
            nulls_last=[not first for _, _, first in keys],
            maintain_order=True,
        )
        return found


def ordered(name: str, schema: Schema) -> pl.Expr:
    """The column as it is compared: a dictionary column by its strings, not by its codes."""
    import polars as pl
    import pyarrow as pa

    column = schema.get(name)
    coded = column is not None and column.type is not None and pa.types.is_dictionary(column.type)
    return pl.col(name).cast(pl.String) if coded else pl.col(name)


def _keys(by: str) -> tuple[list[tuple[str, bool, bool]], list[Fault]]:
    """`a desc, b nulls first` as [("a", True, False), ("b", False, True)]."""
    hint = 'write by="a desc, b"'
    read, rest = comma_list(by)
    if rest:
        return [], [Fault("OPER104", f"by: '{rest}' is not a column", hint)]
    keys, faults = [], []
    for name, behind in read:
        match = _DIRECTION.fullmatch(behind)
        if match is None:
            faults.append(Fault("OPER104", f"by: '{behind}' after '{name}' is neither asc nor desc", hint))
        else:
            falling, first = (match[1] or "").lower() == "desc", (match[2] or "").lower() == "first"
            keys.append((name, falling, first))
    return keys, faults if read else [Fault("OPER104", "by: it names no column", hint)]


class Limit(Process):
    """Keeps the first `rows` rows, in order. Streams, and stops reading when it has them."""

    type: ClassVar[str] = "limit"
    example: ClassVar[str] = '<process name="first" type="limit" from="ranked" rows="100"/>'

    # Polars counts rows in 32 bits.
    rows: NonNegativeInt = Field(lt=2**32, description="how many rows to keep")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        return Checked({"": inputs[self.from_]})

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        found: pl.LazyFrame = inputs[self.from_].head(self.rows)
        return found


class Aggregate(Process):
    """Makes a row of each group of rows that are equal in `by`; without `by`, one row of them all.

    Sorted by `by`; null is a group of its own and comes last, NaN is one group. Columns: `by`, then `columns`.
    Aggregates skip nulls and give null where nothing is left, counts 0. Counts, extremes and sums of integers need
    memory for the groups only; sums and means of floats, quantiles and the like for the columns they read, because
    they add up in row order and so give the same bits at any number of threads.
    """

    type: ClassVar[str] = "aggregate"
    example: ClassVar[str] = (
        '<process name="daily" type="aggregate" from="clicks" by="day city" columns="count(*) as n, avg(x) as mean"/>'
    )

    by: Names = Field((), description="the columns that make a group; none: all rows are one")
    columns: Columns = Field(min_length=1, description='"count(*) as n, avg(x) as m"')

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        from penstock.operators.expressions import check_columns

        schema = frame(inputs[self.from_])
        faults = [*unknown(self.by, schema, "by"), *repeated(self.by, "by"), *typed(self.by, schema, "by", "ordered")]
        if faults:
            return Checked({"": Schema.unknown()}, tuple(faults))
        columns, found = check_columns(self.columns, schema, by=self.by)
        if not any(fault.severity == "error" for fault in found):
            found = (*found, *self._taken())
        listed = {column.name for column in columns}
        keys = [schema.get(name) or Column(name) for name in self.by if name not in listed]
        return Checked({"": Schema((*keys, *columns))}, tuple(found))

    def _taken(self) -> list[Fault]:
        """OPER103 for an aggregate that has a key's name; the key itself may stand among the columns."""
        from penstock.operators import expressions

        named = (entry for entry in expressions.parse_columns(self.columns) if entry.name in self.by)
        keys = [expressions.Column(name) for name in self.by]  # where it stands does not count
        taken = [entry.name for entry in named if entry.expr not in keys]
        return [Fault("OPER103", f"columns: '{n}' is a column of `by` already", "give it another name") for n in taken]

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        from penstock.operators.aggregation import aggregated
        from penstock.operators.expressions import parse_columns

        schema = frame(context.info(self.from_))
        return aggregated(inputs[self.from_], self.by, parse_columns(self.columns), schema)
