"""What `filter`, `select` and `derive` promise beyond the expressions themselves."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from penstock.data.schema import Column, Schema
from penstock.operators.rows import Derive, Filter, Select

from .conftest import Apply, faults

FRAME = pl.DataFrame({"a": [3, 1, None], "s": ["x", None, "é"]})
ROLES = {"a": Schema((Column("a", role="label"), Column("s", role="kept")), "plan")}


def op(cls: Any, **attrs: str) -> Any:
    return cls.model_validate({"from": "a", **attrs})


def roles(info: Any) -> dict[str, str]:
    return {column.name: column.role for column in info}


def test_filter_keeps_what_is_true_in_order_and_drops_null(apply: Apply) -> None:
    assert apply(op(Filter, where="a > 0"), a=FRAME).frame["a"].to_list() == [3, 1]
    assert apply(op(Filter, where="not (a > 2)"), a=FRAME).frame["a"].to_list() == [1]
    assert apply(op(Filter, where="null"), a=FRAME).frame.height == 0
    made = apply(op(Filter, where="s is null or s = 'é'"), ROLES, a=FRAME)
    assert made.frame.height == 2 and roles(made.infos[""]) == {"a": "label", "s": "kept"}


def test_select_orders_renames_and_computes(apply: Apply) -> None:
    made = apply(op(Select, columns="s as t, a * 2 as b, a"), ROLES, a=FRAME)
    assert made.frame.rows() == [("x", 6, 3), (None, 2, 1), ("é", None, None)]
    assert roles(made.infos[""]) == {"t": "kept", "b": "", "a": "label"}
    assert isinstance(made.infos[""], Schema) and made.infos[""].plan == "plan"


def test_select_swaps_names_and_takes_star(apply: Apply) -> None:
    assert apply(op(Select, columns="a as s, s as a"), a=FRAME).frame.rows()[0] == (3, "x")
    assert apply(op(Select, columns="*, 1 as one"), a=FRAME).frame.columns == ["a", "s", "one"]


def test_constants_alone_are_as_long_as_the_frame(apply: Apply) -> None:
    assert apply(op(Select, columns="1 as one, 'é' as e"), a=FRAME).frame.rows() == [(1, "é")] * 3
    assert apply(op(Select, columns="1 as one"), a=FRAME.clear()).frame.height == 0


def test_derive_adds_behind_and_replaces_in_place_from_what_arrived(apply: Apply) -> None:
    made = apply(op(Derive, columns="a + 1 as b, a + 10 as a, s as u"), ROLES, a=FRAME)
    assert made.frame.columns == ["a", "s", "b", "u"]
    assert made.frame.row(0) == (13, "x", 4, "x")
    assert roles(made.infos[""]) == {"a": "", "s": "kept", "b": "", "u": "kept"}


def test_a_name_that_is_no_identifier_stands_in_double_quotes(apply: Apply) -> None:
    frame = pl.DataFrame({"user id": [1], "日": [2]})
    made = apply(op(Derive, columns='"user id" + "日" as "the sum"'), a=frame).frame
    assert made.to_dict(as_series=False) == {"user id": [1], "日": [2], "the sum": [3]}


@pytest.mark.parametrize(
    ("operator", "code"),
    [
        (op(Filter, where="b > 0"), "EXPR010"),
        (op(Filter, where="a >"), "EXPR001"),
        (op(Filter, where="a"), "OPER102"),
        (op(Filter, where="a = 'x'"), "EXPR013"),
        (op(Select, columns="a, a"), "EXPR006"),
        (op(Select, columns="a * 2"), "EXPR005"),
        (op(Derive, columns="sum(a) as s"), "EXPR014"),
        (op(Derive, columns="*"), "OPER104"),
    ],
)
def test_what_cannot_be_is_one_problem(operator: Any, code: str) -> None:
    found = faults(operator, a=FRAME)
    assert [fault.split()[0] for fault in found] == [code], found


def test_types_that_are_not_known_are_not_guessed_at() -> None:
    open_schema = Schema((Column("a", pa.int64()),), open=True)
    assert faults(op(Filter, where="whatever = 1"), a=open_schema) == []
    assert faults(op(Derive, columns="whatever + 1 as b"), a=Schema.unknown()) == []
