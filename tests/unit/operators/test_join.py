"""What `join` promises, kind by kind, against an oracle in plain Python."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.schema import Column, Schema
from penstock.engines.local_types import schema_of
from penstock.operators.base import CheckContext
from penstock.operators.join import Join

from .conftest import Apply, applied, faults

LEFT = pl.DataFrame({"id": [3, 1, None, 2, 1], "x": [1, 2, 3, 4, 5]})
RIGHT = pl.DataFrame({"id": [1, 2, None, 9, 1], "y": ["a", "b", "n", "z", "c"], "x": [7, 8, 9, 10, 11]})


def join(**attrs: Any) -> Join:
    return Join.model_validate({"from": "a b", **attrs})


MATCHED = [(1, 2, "a", 7), (1, 2, "c", 11), (2, 4, "b", 8), (1, 5, "a", 7), (1, 5, "c", 11)]
ALL_LEFT = [(3, 1, None, None), *MATCHED[:2], (None, 3, None, None), *MATCHED[2:]]
ONLY_RIGHT = [(None, None, "n", 9), (9, None, "z", 10)]


@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ("inner", MATCHED),
        ("left", ALL_LEFT),
        ("right", [*MATCHED, *ONLY_RIGHT]),
        ("full", [*ALL_LEFT, *ONLY_RIGHT]),
    ],
)
def test_each_kind_keeps_left_order_coalesces_keys_and_never_matches_nulls(
    apply: Apply, how: str, rows: list[tuple[Any, ...]]
) -> None:
    made = apply(join(on="id", how=how), a=LEFT, b=RIGHT).frame
    assert made.columns == ["id", "x", "y", "x_right"]
    assert made.rows() == rows


def test_semi_and_anti_keep_only_left_columns(apply: Apply) -> None:
    assert apply(join(on="id", how="semi"), a=LEFT, b=RIGHT).frame.rows() == [(1, 2), (2, 4), (1, 5)]
    assert apply(join(on="id", how="anti"), a=LEFT, b=RIGHT).frame.rows() == [(3, 1), (None, 3)]


def test_cross_pairs_every_row(apply: Apply) -> None:
    made = apply(join(how="cross"), a=pl.DataFrame({"n": [2, 1]}), b=pl.DataFrame({"n": ["x", "y"]})).frame
    assert made.rows() == [(2, "x"), (2, "y"), (1, "x"), (1, "y")]
    assert made.columns == ["n", "n_right"]


def test_qualified_keys_of_different_names_stand_once_under_the_left_name(apply: Apply) -> None:
    b = pl.DataFrame({"uid": [1, 4], "id": ["p", "q"]})
    for on in ("a.id = b.uid", "b.uid = a.id"):
        made = apply(join(on=on, how="full"), a=LEFT, b=b).frame
        assert made.columns == ["id", "x", "id_right"]
        assert made.rows() == [
            (3, 1, None),
            (1, 2, "p"),
            (None, 3, None),
            (2, 4, None),
            (1, 5, "p"),
            (4, None, "q"),
        ]


def test_a_port_is_qualified_with_an_underscore(apply: Apply) -> None:
    operator = Join.model_validate({"from": "parts.train b", "on": "parts_train.id = b.id"})
    assert apply(operator, parts__train=LEFT, b=RIGHT).frame.height == 5


def test_several_keys_and_quoted_names(apply: Apply) -> None:
    a = pl.DataFrame({"user id": [1, 1], "day": [1, 2]})
    b = pl.DataFrame({"user id": [1, 1], "day": [2, 3], "v": [5, 6]})
    for on in ('"user id", day', '"user id" day', 'a."user id" = b."user id" and a.day = b.day'):
        assert apply(join(on=on), a=a, b=b).frame.rows() == [(1, 2, 5)]


def test_keys_of_different_widths_meet_in_the_wider_one(apply: Apply) -> None:
    a = pl.DataFrame({"k": pl.Series([1, 2], dtype=pl.Int32)})
    b = pl.DataFrame({"k": pl.Series([2, 2**40], dtype=pl.Int64)})
    assert apply(join(on="k", how="full"), a=a, b=b).frame["k"].to_list() == [1, 2, 2**40]


def test_a_nan_key_equals_a_nan_and_zero_equals_minus_zero(apply: Apply) -> None:
    a = pl.DataFrame({"k": [float("nan"), -0.0, None]})
    b = pl.DataFrame({"k": [0.0, float("nan"), None], "v": [1, 2, 3]})
    assert apply(join(on="k", how="left"), a=a, b=b).frame["v"].to_list() == [2, 1, None]


def test_roles_come_from_both_sides_and_survive_the_suffix(apply: Apply) -> None:
    infos = {
        "a": Schema((Column("id", role="kept"), Column("x", role="label")), "plan"),
        "b": Schema((Column("x", role="dense"),)),
    }
    made = apply(join(on="id"), infos, a=LEFT, b=RIGHT).infos[""]
    assert isinstance(made, Schema)
    assert {c.name: c.role for c in made} == {"id": "kept", "x": "label", "y": "", "x_right": "dense"}
    assert made.plan == "plan"


def test_empty_frames_join(apply: Apply) -> None:
    assert apply(join(on="id", how="left"), a=LEFT.clear(), b=RIGHT).frame.height == 0
    assert apply(join(on="id", how="left"), a=LEFT, b=RIGHT.clear()).frame["y"].null_count() == 5


# --- asof -----------------------------------------------------------------------------------------------------


def test_asof_takes_the_latest_earlier_row_of_its_group(apply: Apply) -> None:
    a = pl.DataFrame({"t": [5, 1, 9, None], "g": ["p", "p", "q", "p"]})
    b = pl.DataFrame({"t": [4, 2, 5, 8], "g": ["p", "p", None, "q"], "v": [1, 2, 3, 4]})
    made = apply(join(on="t", how="asof", by="g"), a=a, b=b).frame
    assert made.columns == ["t", "g", "v"]
    assert made.rows() == [(5, "p", 1), (1, "p", None), (9, "q", 4), (None, "p", None)]


def test_asof_looks_forward_or_both_ways_when_told(apply: Apply) -> None:
    a = pl.DataFrame({"t": [5, 1]})
    b = pl.DataFrame({"t": [4, 7], "v": [1, 2]})
    assert apply(join(on="t", how="asof", direction="forward"), a=a, b=b).frame["v"].to_list() == [2, 1]
    assert apply(join(on="t", how="asof", direction="nearest"), a=a, b=b).frame["v"].to_list() == [1, 1]


def test_asof_tolerance_is_a_duration_for_times_and_a_number_for_numbers(apply: Apply) -> None:
    a = pl.DataFrame({"d": [date(2026, 1, 10)]})
    b = pl.DataFrame({"when": [date(2026, 1, 3)], "v": [1]})
    on = "a.d = b.when"
    assert apply(join(on=on, how="asof", tolerance="7d"), a=a, b=b).frame["v"].to_list() == [1]
    assert apply(join(on=on, how="asof", tolerance="6d"), a=a, b=b).frame["v"].to_list() == [None]
    n, m = pl.DataFrame({"t": [1.5]}), pl.DataFrame({"t": [1.0], "v": [1]})
    assert apply(join(on="t", how="asof", tolerance="0.5"), a=n, b=m).frame["v"].to_list() == [1]
    assert faults(join(on="t", how="asof", tolerance="7d"), a=n, b=m) == [
        "OPER104 tolerance: 't' is double, so the tolerance is a number, not '7d'"
    ]
    ts = pl.DataFrame({"t": [datetime(2026, 1, 1)]})
    assert faults(join(on="t", how="asof", tolerance="7"), a=ts, b=ts)[0].startswith("OPER104")


# --- what it refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"on": "idd"}, "OPER101 on: 'a': there is no column 'idd'"),
        ({"on": "a.id = b.uid"}, "OPER101 on: 'b': there is no column 'uid'"),
        ({"on": "a.id < b.id"}, "OPER105 on: a join compares by '=' only, not by '<'"),
        ({"on": "a.id b.id"}, "OPER105 on: 'a.id' is compared with nothing"),
        ({"on": "id or x"}, "OPER105 on: a join compares by '=' only, not by 'or'"),
        ({"on": "a.id = c.id"}, "OPER105 on: 'c' is not one of the joined steps"),
        ({"on": "id = x"}, "OPER105 on: it is not clear which step 'id' belongs to"),
        ({"on": "a.id = 3"}, "OPER105 on: '3' does not belong in a join's keys"),
        ({"on": "id,"}, "OPER105 on: 'id,' ends after ','"),
        ({}, 'OPER105 on: a join with how="inner" needs its keys'),
        ({"on": "id", "how": "cross"}, "OPER105 on: a cross join pairs every row with every row; it takes no keys"),
        ({"on": "id", "by": "x"}, "OPER105 by: only asof joins take it"),
        (
            {"on": "id", "how": "asof", "tolerance": "soon"},
            "OPER104 tolerance: 'soon' is neither a duration nor a number",
        ),
        ({"on": "a.id = b.y"}, "OPER102 on: 'id' is int64 and 'y' is string: they cannot be equal"),
        ({"on": "id, x", "how": "asof"}, "OPER105 on: asof compares one column by nearness, not 2"),
        ({"on": "id, id"}, "OPER103 on: 'id' is named twice"),
    ],
)
def test_a_join_that_cannot_be_is_one_problem_that_says_why(attrs: dict[str, str], said: str) -> None:
    assert faults(join(**attrs), a=LEFT, b=RIGHT) == [said]


def test_three_steps_are_one_too_many() -> None:
    operator = Join.model_validate({"from": "a b c", "on": "id"})
    assert faults(operator, a=LEFT, b=RIGHT, c=LEFT) == ["OPER105 from: a join reads two steps, not 3"]


def test_a_misspelt_key_gets_a_hint() -> None:
    infos = {"a": schema_of(LEFT.lazy()), "b": schema_of(RIGHT.lazy())}
    [fault] = join(on="ids").check(infos, CheckContext()).faults
    assert fault.hint == "did you mean 'id'?"


def test_unknown_schemas_are_not_guessed_at() -> None:
    assert faults(join(on="whatever"), a=Schema.unknown(), b=RIGHT) == [
        "OPER101 on: 'b': there is no column 'whatever'"
    ]
    assert faults(join(on="id"), a=Schema.unknown(), b=RIGHT) == []


# --- the oracle -----------------------------------------------------------------------------------------------

Keys = list[tuple[int | None, str | None]]
keys = st.lists(st.tuples(st.none() | st.integers(0, 3), st.none() | st.sampled_from(["", "a", "é"])), max_size=8)


def expected(how: str, left: Keys, right: Keys) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    met = set()
    for i, key in enumerate(left):
        matches = [j for j, other in enumerate(right) if None not in key and key == other]
        met |= set(matches)
        rows += [(*key, i, j) for j in matches]
        if not matches and how in ("left", "full"):
            rows.append((*key, i, None))
    if how in ("right", "full"):
        rows += [(*key, None, j) for j, key in enumerate(right) if j not in met]
    return rows


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["inner", "left", "right", "full"]), keys, keys)
def test_every_kind_equals_a_nested_loop(tmp_path_factory: Any, how: str, left: Keys, right: Keys) -> None:
    types = {"k": pl.Int64, "s": pl.String}
    a = pl.DataFrame(left, schema=types, orient="row").with_columns(i=pl.int_range(len(left)))
    b = pl.DataFrame(right, schema=types, orient="row").with_columns(j=pl.int_range(len(right)))
    made = applied(tmp_path_factory.getbasetemp(), join(on="k s", how=how), {"a": a, "b": b}, {}).frame
    assert made.rows() == expected(how, left, right)
