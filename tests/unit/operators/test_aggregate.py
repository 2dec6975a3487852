"""What `aggregate` promises, against plain Python."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.schema import Column, Schema
from penstock.operators.tables import Aggregate

from .conftest import Apply, applied, faults


def aggregate(columns: str, by: str = "") -> Aggregate:
    return Aggregate.model_validate({"from": "a", "by": by, "columns": columns})


FRAME = pl.DataFrame({"k": ["b", None, "a", "b", None], "i": [1, 2, None, 4, 5], "f": [0.1, 0.2, None, 0.3, math.nan]})


def test_groups_are_sorted_and_null_is_the_last_of_them(apply: Apply) -> None:
    made = apply(aggregate("count(*) as n, sum(i) as s, count(i) as c, max(i) as m", "k"), a=FRAME).frame
    assert made.columns == ["k", "n", "s", "c", "m"]
    assert made.rows() == [("a", 1, None, 0, None), ("b", 2, 5, 2, 4), (None, 2, 7, 2, 5)]


def test_floats_add_up_in_row_order(apply: Apply) -> None:
    made = apply(aggregate("avg(f) as mean, sum(f) as total", "k"), a=FRAME.head(4)).frame
    assert made.rows() == [("a", None, None), ("b", 0.2, 0.4), (None, 0.2, 0.2)]


def test_without_by_there_is_one_row_even_of_no_rows(apply: Apply) -> None:
    assert apply(aggregate("count(*) as n, avg(i) as m"), a=FRAME).frame.rows() == [(5, 3.0)]
    assert apply(aggregate("count(*) as n, avg(i) as m"), a=FRAME.clear()).frame.rows() == [(0, None)]
    assert apply(aggregate("count(*) as n"), a=FRAME).frame.rows() == [(5,)]


def test_expressions_may_stand_inside_and_around_aggregates(apply: Apply) -> None:
    made = apply(aggregate("sum(i * 2) + count(*) as x, upper(k) as u", "k"), a=FRAME.drop_nulls("k")).frame
    assert made.rows() == [("a", None, "A"), ("b", 12, "B")]


def test_a_grouping_column_may_be_named_and_stands_where_it_is_named(apply: Apply) -> None:
    made = apply(aggregate("count(*) as n, k", "k"), a=FRAME).frame
    assert made.columns == ["n", "k"]


def test_nan_is_one_group_and_so_are_the_two_zeros(apply: Apply) -> None:
    frame = pl.DataFrame({"f": [math.nan, -0.0, 0.0, math.nan]})
    assert apply(aggregate("count(*) as n", "f"), a=frame).frame["n"].to_list() == [2, 2]


def test_grouping_columns_keep_their_role(apply: Apply) -> None:
    infos = {"a": Schema((Column("k", role="kept"), Column("i", role="label")))}
    made = apply(aggregate("max(i) as i", "k"), infos, a=FRAME).infos[""]
    assert isinstance(made, Schema) and {c.name: c.role for c in made} == {"k": "kept", "i": ""}


@pytest.mark.parametrize(
    ("operator", "code"),
    [
        (aggregate("count(*) as n", "kk"), "OPER101"),
        (aggregate("count(*) as n", "k k"), "OPER103"),
        (aggregate("i as x", "k"), "EXPR014"),
        (aggregate("count(*)", "k"), "EXPR005"),
        (aggregate("avg(k) as m"), "EXPR013"),
        (aggregate("avg(j) as m"), "EXPR010"),
    ],
)
def test_what_cannot_be_is_one_problem(operator: Aggregate, code: str) -> None:
    found = faults(operator, a=FRAME)
    assert [fault.split()[0] for fault in found] == [code], found


rows = st.lists(st.tuples(st.none() | st.sampled_from(["", "a", "é"]), st.none() | st.integers(-5, 5)), max_size=15)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_aggregates_equal_a_loop_over_the_rows(tmp_path_factory: Any, rows: list[Any]) -> None:
    frame = pl.DataFrame(rows, schema={"k": pl.String, "i": pl.Int64}, orient="row")
    operator = aggregate("count(*) as n, count(i) as c, sum(i) as s, min(i) as low, avg(i) as m", "k")
    made = applied(tmp_path_factory.getbasetemp(), operator, {"a": frame}, {}).frame
    expected = []
    for key in sorted({k for k, _ in rows}, key=lambda k: (k is None, (k or "").encode())):
        values = [i for k, i in rows if k == key and i is not None]
        total = sum(values) if values else None
        mean = sum(values) / len(values) if values else None
        expected.append((key, sum(k == key for k, _ in rows), len(values), total, min(values, default=None), mean))
    assert made.rows() == expected


def test_an_aggregate_does_not_take_the_name_of_a_key(apply: Apply) -> None:
    assert faults(aggregate("count(*) as k, max(i) as i", "i k"), a=FRAME) == [
        "OPER103 columns: 'k' is a column of `by` already",
        "OPER103 columns: 'i' is a column of `by` already",
    ]
    assert apply(aggregate("count(*) as n, k", "k"), a=FRAME).frame.columns == ["n", "k"]
