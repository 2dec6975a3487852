"""What `clean` promises: each repair, and their order."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.operators.clean import Clean

from .conftest import Apply, applied, faults


def clean(**attrs: Any) -> Clean:
    return Clean.model_validate({"from": "a", **attrs})


FRAME = pl.DataFrame(
    {
        "i": [1, None, 500],
        "f": [math.nan, None, -2.0],
        "s": [" é\u00a0", None, "\t"],
        "b": [True, None, False],
        "d": [date(2026, 1, 1), None, None],
        "t": [datetime(2026, 1, 1, tzinfo=UTC), None, None],
    }
)


def test_trim_takes_all_white_space_off_and_leaves_empty_strings(apply: Apply) -> None:
    assert apply(clean(trim="s"), a=FRAME).frame["s"].to_list() == ["é", None, ""]


def test_fill_replaces_nulls_and_only_nulls(apply: Apply) -> None:
    fill = "i=0, f=1, s='it''s, = :', b=true, d='2025-12-31', t='2025-12-31T12:00:00'"
    made = apply(clean(fill=fill), a=FRAME).frame
    assert made.row(1) == (0, 1.0, "it's, = :", True, date(2025, 12, 31), datetime(2025, 12, 31, 12, tzinfo=UTC))
    assert math.isnan(made["f"][0])
    assert made.schema == FRAME.schema


def test_clip_keeps_null_and_nan_and_either_bound_may_be_missing(apply: Apply) -> None:
    made = apply(clean(clip="i:2:100, f::-3"), a=FRAME).frame
    assert made["i"].to_list() == [2, None, 100]
    assert math.isnan(made["f"][0]) and made["f"].to_list()[1:] == [None, -3.0]


def test_the_repairs_happen_in_the_contracts_order(apply: Apply) -> None:
    frame = pl.DataFrame({"k": ["a ", "a", None, "b"], "v": [None, 0, 7, 99]})
    attrs = {"trim": "k", "fill": "v=-5", "clip": "v:0:10", "drop_nulls": "k", "dedup": "k v"}
    # ("a ", null) becomes ("a", 0), which is then the same as the second row.
    assert apply(clean(**attrs), a=frame).frame.rows() == [("a", 0), ("b", 10)]


def test_dedup_keeps_the_first_or_the_last_in_order(apply: Apply) -> None:
    frame = pl.DataFrame({"k": [2, 1, 2, None, None], "i": [0, 1, 2, 3, 4]})
    assert apply(clean(dedup="k"), a=frame).frame["i"].to_list() == [0, 1, 3]
    assert apply(clean(dedup="k", keep="last"), a=frame).frame["i"].to_list() == [1, 2, 4]
    assert apply(clean(dedup="k", keep="any"), a=frame).frame["k"].to_list() == [2, 1, None]


def test_a_column_of_nothing_but_nulls_can_be_cleaned(apply: Apply) -> None:
    frame = pl.DataFrame({"n": [None, None]}, schema={"n": pl.String})
    assert apply(clean(trim="n", fill="n='x'", dedup="n"), a=frame).frame["n"].to_list() == ["x"]


def test_an_empty_frame_stays_empty(apply: Apply) -> None:
    made = apply(clean(trim="s", fill="i=0", clip="f:0:1", drop_nulls="d", dedup="i"), a=FRAME.clear()).frame
    assert made.height == 0 and made.schema == FRAME.schema


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"trim": "ss"}, "OPER101 trim: there is no column 'ss'"),
        ({"trim": "i"}, "OPER102 trim: column 'i' is int64, not a string"),
        ({"clip": "s:0:1"}, "OPER102 clip: column 's' is string, not a number"),
        ({"clip": "i:0.5:1"}, "OPER102 clip: column 'i' is int64, which cannot hold 0.5"),
        ({"clip": "i:9:1"}, "OPER104 clip: the range of 'i' is empty: 9 is more than 1"),
        ({"clip": "i:0"}, "OPER104 clip: 'i:0' is not NAME:LOW:HIGH"),
        ({"clip": "i:a:1"}, "OPER104 clip: 'i:a:1' is not NAME:LOW:HIGH"),
        ({"fill": "i=0.5"}, "OPER102 fill: column 'i' is int64, which cannot hold 0.5"),
        ({"fill": "i='0'"}, "OPER102 fill: column 'i' is int64, which cannot hold '0'"),
        ({"fill": "s=0"}, "OPER102 fill: column 's' is string, which cannot hold 0"),
        ({"fill": "s=none"}, "OPER104 fill: 'none' for column 's' is neither a number nor true nor false"),
        ({"fill": "d='soon'"}, "OPER102 fill: column 'd' is date32[day], which cannot hold 'soon'"),
        ({"fill": "s"}, "OPER104 fill: 's' is not NAME=VALUE"),
        ({"fill": "i=0, i=1"}, "OPER103 fill: 'i' is named twice"),
        ({"dedup": "k"}, "OPER101 dedup: there is no column 'k'"),
    ],
)
def test_a_repair_that_cannot_be_is_one_problem(attrs: dict[str, str], said: str) -> None:
    assert faults(clean(**attrs), a=FRAME) == [said]


rows = st.lists(
    st.tuples(st.none() | st.integers(-3, 3), st.none() | st.sampled_from(["", " ", "a", " a"])), max_size=10
)


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from(["first", "last"]))
def test_clean_equals_a_loop_over_the_rows(tmp_path_factory: Any, rows: list[Any], keep: str) -> None:
    frame = pl.DataFrame(rows, schema={"v": pl.Int64, "s": pl.String}, orient="row")
    frame = frame.with_columns(i=pl.int_range(len(rows)))
    operator = clean(trim="s", fill="s='a'", clip="v:-1:2", drop_nulls="v", dedup="v s", keep=keep)
    made = applied(tmp_path_factory.getbasetemp(), operator, {"a": frame}, {}).frame
    kept: dict[Any, int] = {}
    for i, (v, s) in enumerate(rows):
        if v is None:
            continue
        key = (max(-1, min(2, v)), "a" if s is None else s.strip())
        if keep == "last" or key not in kept:
            kept[key] = i
    assert made.rows() == [(*key, i) for key, i in sorted(kept.items(), key=lambda item: item[1])]
