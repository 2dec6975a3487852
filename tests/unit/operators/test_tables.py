"""What `union`, `sort` and `limit` promise."""

from __future__ import annotations

import math
from functools import cmp_to_key
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock.data.schema import Column, Schema
from penstock.operators.tables import Limit, Sort, Union

from .conftest import Apply, applied, faults


def union(**attrs: Any) -> Union:
    return Union.model_validate({"from": "a b", **attrs})


def sort(by: str) -> Sort:
    return Sort.model_validate({"from": "a", "by": by})


def test_union_matches_columns_by_name_and_fills_what_is_missing(apply: Apply) -> None:
    made = apply(union(), a=pl.DataFrame({"x": [1], "y": ["é"]}), b=pl.DataFrame({"z": [True], "x": [2]})).frame
    assert made.columns == ["x", "y", "z"]
    assert made.rows() == [(1, "é", None), (2, None, True)]


def test_union_widens_numbers_and_takes_an_empty_column_as_any_type(apply: Apply) -> None:
    a = pl.DataFrame({"i": pl.Series([1], dtype=pl.Int32), "f": [1], "n": [None]})
    b = pl.DataFrame({"i": pl.Series([2**40]), "f": [0.5], "n": ["s"]})
    made = apply(union(), a=a, b=b).frame
    assert made.schema == {"i": pl.Int64, "f": pl.Float64, "n": pl.String}
    assert made.rows() == [(1, 1.0, None), (2**40, 0.5, "s")]


def test_union_refuses_types_that_cannot_be_one_column() -> None:
    a, b = pl.DataFrame({"x": [1], "y": [1]}), pl.DataFrame({"x": ["1"], "y": [[1]]})
    assert faults(union(), a=a, b=b) == [
        "OPER106 column 'x' is int64 in 'a' and string in 'b'",
        "OPER106 column 'y' is int64 in 'a' and list<item: int64> in 'b'",
    ]


def test_union_keeps_the_role_that_either_frame_gives(apply: Apply) -> None:
    infos = {"a": Schema((Column("x", role="slot"),), "plan"), "b": Schema((Column("y", role="dense"),), "plan")}
    frames = {"a": pl.DataFrame({"x": [1]}), "b": pl.DataFrame({"x": [1], "y": [2]})}
    made = apply(union(), infos, **frames).infos[""]
    assert isinstance(made, Schema)
    assert {c.name: c.role for c in made} == {"x": "slot", "y": "dense"} and made.plan == "plan"


def test_union_of_one_step_with_itself_doubles_it(apply: Apply) -> None:
    operator = Union.model_validate({"from": "a a"})
    assert apply(operator, a=pl.DataFrame({"x": [1, 2]})).frame["x"].to_list() == [1, 2, 1, 2]


def test_limit_keeps_the_first_rows(apply: Apply) -> None:
    frame = pl.DataFrame({"x": [3, 1, 2]})
    for rows, kept in ((0, []), (2, [3, 1]), (9, [3, 1, 2])):
        assert apply(Limit.model_validate({"from": "a", "rows": rows}), a=frame).frame["x"].to_list() == kept


def test_sort_orders_strings_by_bytes_and_puts_nan_above_and_null_last(apply: Apply) -> None:
    words = pl.DataFrame({"s": ["é", "a", None, "Z", "", "𐍈"]})
    assert apply(sort("s"), a=words).frame["s"].to_list() == ["", "Z", "a", "é", "𐍈", None]
    numbers = pl.DataFrame({"f": [math.inf, None, math.nan, -0.0, 1.0]})
    falling = apply(sort("f desc"), a=numbers).frame["f"].to_list()
    assert math.isnan(falling[0]) and falling[1:] == [math.inf, 1.0, -0.0, None]


def test_sort_orders_categories_by_their_strings(apply: Apply) -> None:
    frame = pl.DataFrame({"c": pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"]))})
    assert apply(sort("c"), a=frame).frame["c"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("xx", "OPER101 by: there is no column 'xx'"),
        ("x down", "OPER104 by: 'down' after 'x' is neither asc nor desc"),
        ("l", "OPER102 by: column 'l' is list<item: int64>, not something that can be put in order"),
        ("x, ,y", "OPER104 by: ',y' is not a column"),
    ],
)
def test_sort_says_what_it_cannot_sort_by(by: str, said: str) -> None:
    assert faults(sort(by), a=pl.DataFrame({"x": [1], "y": [1], "l": [[1]]})) == [said]


def test_an_unknown_type_is_not_guessed_at() -> None:
    schema = Schema((Column("x"), Column("y", pa.int64())))
    assert faults(sort("x, y desc"), a=schema) == []


cells = st.none() | st.sampled_from([math.nan, -0.0, 0.0, -1.5, math.inf])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, st.sampled_from(["", "a", "é"])), max_size=12), st.booleans(), st.booleans())
def test_sort_is_stable(tmp_path_factory: Any, rows: list[Any], falling: bool, second: bool) -> None:
    frame = pl.DataFrame(rows, schema={"f": pl.Float64, "s": pl.String}, orient="row")
    frame = frame.with_columns(i=pl.int_range(len(rows)))
    by = f"f {'desc' if falling else 'asc'}, s {'desc' if second else ''}"
    made = applied(tmp_path_factory.getbasetemp(), sort(by), {"a": frame}, {}).frame

    def compared(a: Any, b: Any, down: bool) -> int:
        if a is None or b is None:
            return (a is None) - (b is None)
        a, b = (((1, 0) if isinstance(v, float) and math.isnan(v) else (0, v)) for v in (a, b))
        return ((a > b) - (a < b)) * (-1 if down else 1)

    def order(a: int, b: int) -> int:
        return compared(rows[a][0], rows[b][0], falling) or compared(rows[a][1], rows[b][1], second)

    assert made["i"].to_list() == sorted(range(len(rows)), key=cmp_to_key(order))


def test_a_sort_names_a_column() -> None:
    assert faults(sort(""), a=pl.DataFrame({"x": [1]})) == ["OPER104 by: it names no column"]


def test_a_limit_is_a_number_that_polars_can_count_to() -> None:
    with pytest.raises(ValidationError, match="less than 4294967296"):
        Limit.model_validate({"from": "a", "rows": "99999999999"})
