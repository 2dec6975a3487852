"""The operators on single rows: `filter`, `select`, `derive`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.data.schema import Info, Schema
from penstock.operators.base import CheckContext, Checked, Columns, Expression, Fault, Process, RunContext
from penstock.operators.column_checks import frame
from penstock.operators.conditions import condition, condition_faults

if TYPE_CHECKING:
    import polars as pl

    from penstock.operators.expressions import Named


class Filter(Process):
    """Keeps the rows for which `where` is true (null is not true), in order. Streams."""

    type: ClassVar[str] = "filter"
    example: ClassVar[str] = (
        '<process name="kept" type="filter" from="clicks" where="price &gt;= 0 and city is not null"/>'
    )
    row_wise: ClassVar[bool] = True

    where: Expression = Field(min_length=1, description="a condition; rows for which it is false or null go")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = frame(inputs[self.from_])
        return Checked({"": schema}, tuple(condition_faults(self.where, schema, "where")))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        found: pl.LazyFrame = inputs[self.from_]
        return found.filter(condition(self.where, frame(context.info(self.from_))))


class Select(Process):
    """Makes a frame of the listed columns, in that order.

    `a` and `a as b` keep the column's role, an expression has none; `*` is every column. Streams.
    """

    type: ClassVar[str] = "select"
    example: ClassVar[str] = (
        '<process name="few" type="select" from="clicks" columns="user_id as user, price * 2 as twice"/>'
    )
    row_wise: ClassVar[bool] = True

    columns: Columns = Field(min_length=1, description='"a, b as c, x * 2 as y"')

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        from penstock.operators.expressions import check_columns

        schema = frame(inputs[self.from_])
        columns, faults = check_columns(self.columns, schema)
        starred = any(named.name == "*" for named in _entries(self.columns))
        return Checked({"": Schema(columns, schema.plan, open=schema.open and starred)}, faults)

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        from penstock.operators.expressions import Star, columns_of

        schema = frame(context.info(self.from_))
        found: pl.LazyFrame = inputs[self.from_]
        entries = _entries(self.columns)
        if any(isinstance(entry.expr, Star) or columns_of(entry.expr) for entry in entries):
            return found.select(_computed(entries, schema))
        # Constants alone would make one row: added to the frame they take its length.
        return found.with_columns(_computed(entries, schema)).select(entry.name for entry in entries)


class Derive(Process):
    """Adds the listed columns to what is there; a name that is taken replaces that column in its place.

    All of them are computed from the columns that arrive. `a as b` keeps a's role, an expression has none. Streams.
    """

    type: ClassVar[str] = "derive"
    example: ClassVar[str] = '<process name="more" type="derive" from="clicks" columns="hour(ts) as hour"/>'
    row_wise: ClassVar[bool] = True

    columns: Columns = Field(min_length=1, description='"x * 2 as y, hour(ts) as hour"')

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        from penstock.operators.expressions import check_columns

        schema = frame(inputs[self.from_])
        columns, faults = check_columns(self.columns, schema)
        if any(entry.name == "*" for entry in _entries(self.columns)):
            said = "columns: derive keeps every column already, so `*` adds nothing"
            return Checked({"": schema}, (Fault("OPER104", said, "leave it away, or use select"),))
        new = {column.name: column for column in columns}
        kept = [new.pop(column.name, column) for column in schema]
        return Checked({"": schema.with_columns([*kept, *new.values()])}, faults)

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        found: pl.LazyFrame = inputs[self.from_]
        return found.with_columns(_computed(_entries(self.columns), frame(context.info(self.from_))))


def _entries(columns: str) -> Sequence[Named]:
    """The entries of a list; none where it cannot be read, which the check says."""
    from penstock.operators.expressions import ExpressionError, parse_columns

    try:
        return parse_columns(columns)
    except ExpressionError:
        return ()


def _computed(entries: Sequence[Named], schema: Schema) -> list[pl.Expr]:
    import polars as pl

    from penstock.operators.expressions import Star, to_polars

    made: list[pl.Expr] = []
    for entry in entries:
        if isinstance(entry.expr, Star):
            made += [pl.col(name) for name in schema.names]
        else:
            made.append(to_polars(entry.expr, schema).alias(entry.name))
    return made
