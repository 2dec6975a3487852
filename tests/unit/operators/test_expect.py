"""What `expect` promises: rows pass unchanged, or the node ends with a message a person can act on."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from penstock.errors import DataError
from penstock.operators.expect import Expect

from .conftest import Apply, faults

FRAME = pl.DataFrame({"price": [1.0, -2.0, None, 4.0], "city": ["a", "é", None, None]})


def expect(**attrs: Any) -> Expect:
    return Expect.model_validate({"from": "a", **attrs})


def test_rows_pass_unchanged_where_all_holds(apply: Apply) -> None:
    operator = expect(where="price > -3 or price is null", min_rows=4, max_null_share="price:0.25, city:0.5")
    assert apply(operator, a=FRAME).frame.equals(FRAME)


def test_a_condition_that_fails_shows_how_many_rows_and_the_first(apply: Apply) -> None:
    with pytest.raises(DataError) as caught:
        apply(expect(where="price > 0"), a=FRAME)
    assert caught.value.message == (
        "step 'step' expected otherwise: 2 rows fail of 4 'price > 0', "
        "first (price=-2.0, city='é'); (price=None, city=None)"
    )
    assert caught.value.code == "OPER107"


def test_everything_that_does_not_hold_is_said_at_once(apply: Apply) -> None:
    with pytest.raises(DataError) as caught:
        apply(expect(where="price > -3", min_rows=1000, max_null_share="city:0.1"), a=FRAME)
    assert "1 row fails of 4 'price > -3'" in caught.value.message
    assert "there are 4 rows, fewer than 1,000" in caught.value.message
    assert "'city' is null in 50.0% of 4 rows, more than 10.0%" in caught.value.message


def test_a_warning_lets_the_rows_pass_and_reaches_the_report(apply: Apply) -> None:
    made = apply(expect(min_rows=5, then="warn"), a=FRAME)
    assert made.frame.height == 4
    assert made.context.messages == ["warning: OPER107 step 'step' expected otherwise: there are 4 rows, fewer than 5"]
    assert made.context.sections[0]["rows"] == [["there are 4 rows, fewer than 5"]]


def test_an_empty_frame_fails_only_where_rows_are_expected(apply: Apply) -> None:
    assert apply(expect(where="price > 0", max_null_share="city:0"), a=FRAME.clear()).frame.height == 0
    with pytest.raises(DataError, match="there are 0 rows, fewer than 1"):
        apply(expect(min_rows=1), a=FRAME.clear())


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({}, "OPER104 it expects nothing"),
        ({"max_null_share": "price"}, "OPER104 max_null_share: 'price' is not NAME:SHARE, 0 to 1"),
        ({"max_null_share": "price:10"}, "OPER104 max_null_share: 'price:10' is not NAME:SHARE, 0 to 1"),
        ({"max_null_share": "prise:0.1"}, "OPER101 max_null_share: there is no column 'prise'"),
        ({"where": "price + 1"}, "OPER102 where: 'price + 1' is double, not true or false"),
    ],
)
def test_an_expectation_that_cannot_be_is_one_problem(attrs: dict[str, str], said: str) -> None:
    assert faults(expect(**attrs), a=FRAME) == [said]
