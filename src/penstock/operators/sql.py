"""`sql`: one SELECT over the steps in `from`, in the flow's own dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from penstock.data.schema import Info, Schema
from penstock.operators.base import CheckContext, Checked, Fault, Form, Process, Refs, RunContext
from penstock.operators.column_checks import frame
from penstock.operators.join_condition import qualifier

if TYPE_CHECKING:
    import polars as pl


class Sql(Process):
    """Computes one SELECT over the steps in `from`, which are its tables (the port `parts.train` is parts_train).

    It knows with, joins (inner, left, right, full, cross, semi, anti; on or using), where, group by, having, distinct,
    order by, limit, offset, union, union all and subqueries in from; names are matched exactly. Every computed column
    needs a name (`as`). Expressions, nulls and types are as everywhere in a flow. Order: where the text has no
    order by, rows keep the first table's order and groups stand sorted by their keys. Refused by name: window
    functions, subqueries inside expressions, natural joins, intersect, except, outer joins on anything but equality.
    Needs memory where `join`, `sort` and `aggregate` do.
    """

    type: ClassVar[str] = "sql"
    example: ClassVar[str] = (
        '<process name="best" type="sql" from="clicks">'
        "select city, count(*) as n from clicks group by city order by n desc limit 10</process>"
    )
    text_field: ClassVar[str] = "query"

    from_: Refs = Field(alias="from", description="the steps that are its tables")  # type: ignore[assignment]
    query: Annotated[str, Form("sql")] = Field(description="one SELECT; usually the element's text")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schemas = {reference: frame(inputs.get(reference, Schema.unknown())) for reference in self.from_}
        faults: list[Fault] = []
        made = self._made(schemas, {}, faults)
        return Checked({"": made[0]}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        schemas = {reference: frame(context.info(reference)) for reference in self.from_}
        frames = {reference: inputs[reference] for reference in self.from_}
        faults: list[Fault] = []
        _, made = self._made(schemas, frames, faults)
        if made is None:  # the check has refused what cannot be made
            raise AssertionError(faults)
        return made

    def _made(
        self, schemas: Mapping[str, Schema], frames: Mapping[str, pl.LazyFrame], faults: list[Fault]
    ) -> tuple[Schema, pl.LazyFrame | None]:
        """The result's schema, and its frame where `frames` are given; what is wrong is added to `faults`."""
        from penstock.operators.expressions import ExpressionError, parse_select
        from penstock.operators.sql_query import Query
        from penstock.operators.sql_relation import Relation, SqlError

        tables = {
            qualifier(reference): Relation.of(qualifier(reference), schema, frames.get(reference))
            for reference, schema in schemas.items()
        }
        try:
            relation = Query(self.query, faults).result(parse_select(self.query), tables)
        except ExpressionError as error:
            faults.append(error.fault())
        except SqlError as error:
            faults.append(error.fault(self.query))
        else:
            if not faults and not any(schema.open for schema in schemas.values()):
                plans = {schema.plan for schema in schemas.values() if schema.plan}
                schema = relation.schema
                return Schema(schema.columns, plans.pop() if len(plans) == 1 else ""), relation.frame
        return Schema.unknown(), None
