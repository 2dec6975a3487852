"""The contract's expressions as a table: `expressions.json` holds what every engine must answer.

A case is [name, {column: [Arrow type, values]}, expression, result type, values]; a type `!CODE` is a refusal with that
code. Doubles that JSON cannot hold are "nan", "inf", "-inf"; dates and timestamps are text. Cases of the group
`aggregates` give one value for all rows; a case without columns is computed for one row.

Another engine joins `ENGINES` with its own `evaluate(expression, table, aggregate) -> pa.ChunkedArray`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from penstock.data.schema import Schema
from penstock.operators.expressions import check, to_polars
from penstock.operators.expressions.types import BY_NAME, TYPE_NAMES

TABLE = Path(__file__).with_name("expressions.json")


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    columns: dict[str, tuple[str, list[Any]]]
    expression: str
    type: str
    values: list[Any]

    @property
    def aggregate(self) -> bool:
        return self.group == "aggregates"

    def table(self) -> pa.Table:
        columns = self.columns or {"_": ("int64", [0])}
        return pa.table({name: _array(kind, values) for name, (kind, values) in columns.items()})


def cases() -> Iterator[Case]:
    """Every case of the table."""
    for group, rows in json.loads(TABLE.read_text()).items():
        for row in rows:
            yield Case(group, *row)


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a name in the table: Arrow's own names, our result types, and lists of either."""
    if name in BY_NAME:
        return BY_NAME[name]
    if name.startswith(("list<", "list(")):
        return pa.list_(arrow_type(name[5:-1]))
    special = {
        "dictionary<string>": pa.dictionary(pa.int32(), pa.string()),
        "decimal128(10, 2)": pa.decimal128(10, 2),
        "timestamp[us, Europe/Berlin]": pa.timestamp("us", "Europe/Berlin"),
    }
    return special.get(name) or pa.type_for_alias(name)


def value_of(kind: pa.DataType, value: Any) -> Any:
    """A JSON value as Python's value of an Arrow type."""
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [value_of(kind.value_type, element) for element in value]
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_date(kind):
        return date.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if kind.tz else found
    if pa.types.is_decimal(kind):
        return Decimal(value)
    return value


def _array(name: str, values: list[Any]) -> pa.Array:
    kind = arrow_type(name)
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array([value_of(kind, value) for value in values], kind)


def same(left: Any, right: Any) -> bool:
    """Equal values, where NaN is NaN and -0.0 is not 0.0."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return type(left) is type(right) and left == right


def local(expression: str, table: pa.Table, aggregate: bool) -> pa.ChunkedArray:
    """The local engine: Polars, streaming."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    by = () if aggregate else None
    built = to_polars(expression, Schema.from_arrow(table.schema), by=by)
    found = frame.lazy().select(result=built).collect(engine="streaming")
    if not aggregate and len(found) != len(frame):
        found = frame.lazy().with_columns(result=built).collect(engine="streaming")
    return found.to_arrow()["result"]


ENGINES = {"local": local}
ALL = list(cases())


def test_the_table_is_large_and_names_each_promise_once() -> None:
    assert len(ALL) >= 200
    names = [(case.group, case.name) for case in ALL]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", [c for c in ALL if not c.type.startswith("!")], ids=lambda c: f"{c.group}: {c.name}")
def test_an_engine_answers_as_the_table_says(case: Case, engine: str) -> None:
    table = case.table()
    wanted = arrow_type(case.type)
    kind, faults = check(case.expression, Schema.from_arrow(table.schema), by=() if case.aggregate else None)
    assert not faults
    assert kind == wanted

    found = ENGINES[engine](case.expression, table, case.aggregate)

    expected = [value_of(wanted, value) for value in case.values]
    answer = found.to_pylist()
    assert len(answer) == len(expected)
    assert all(map(same, answer, expected)), f"{case.expression}: {answer} rather than {expected}"
    if case.type in TYPE_NAMES:
        assert found.type in (wanted, pa.large_string(), pa.string_view())


@pytest.mark.parametrize("case", [c for c in ALL if c.type.startswith("!")], ids=lambda c: f"{c.group}: {c.name}")
def test_what_is_no_expression_is_refused_with_its_code(case: Case) -> None:
    schema = Schema.from_arrow(case.table().schema)
    _, faults = check(case.expression, schema, by=() if case.aggregate else None)
    assert [fault.code for fault in faults] == [case.type[1:]]
