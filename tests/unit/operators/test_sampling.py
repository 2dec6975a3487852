"""What `sample` and `split` promise, against an XXH3 written from its specification and loops in plain Python."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.schema import Column, Schema
from penstock.errors import DataError
from penstock.operators.sampling import Sample, Split

from .conftest import Apply, applied, faults

MASK = 2**64 - 1
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee035"
    "90e6813a264c"
)


def xxh3(data: bytes, seed: int) -> int:
    """XXH3-64 of 1 to 16 bytes, enough for ordinals and short strings."""

    def word(at: int, size: int = 8, source: bytes = SECRET) -> int:
        return int.from_bytes(source[at : at + size], "little")

    n = len(data)
    assert 1 <= n <= 16
    if n <= 3:
        mixed = (data[0] << 16) | (data[n >> 1] << 24) | data[n - 1] | (n << 8)
        h = mixed ^ (((word(0, 4) ^ word(4, 4)) + seed) & MASK)
        h = ((h ^ (h >> 33)) * 0xC2B2AE3D27D4EB4F) & MASK
        h = ((h ^ (h >> 29)) * 0x165667B19E3779F9) & MASK
        return h ^ (h >> 32)
    if n <= 8:
        seed ^= int.from_bytes((seed & 0xFFFFFFFF).to_bytes(4, "little"), "big") << 32
        flip = ((word(8) ^ word(16)) - seed) & MASK
        h = (word(n - 4, 4, data) + (word(0, 4, data) << 32)) ^ flip
        h ^= ((h << 49) | (h >> 15)) & MASK ^ ((h << 24) | (h >> 40)) & MASK
        h = (h * 0x9FB21C651E98DF25) & MASK
        h = ((h ^ ((h >> 35) + n)) * 0x9FB21C651E98DF25) & MASK
        return h ^ (h >> 28)
    low = word(0, 8, data) ^ (((word(24) ^ word(32)) + seed) & MASK)
    high = word(n - 8, 8, data) ^ (((word(40) ^ word(48)) - seed) & MASK)
    product = low * high
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    h = (n + swapped + high + ((product & MASK) ^ (product >> 64))) & MASK
    h = ((h ^ (h >> 37)) * 0x165667919E3779F9) & MASK
    return h ^ (h >> 32)


def split(**attrs: Any) -> Split:
    return Split.model_validate({"from": "a", **attrs})


def sample(**attrs: Any) -> Sample:
    return Sample.model_validate({"from": "a", **attrs})


def numbered(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"i": range(rows)}, schema={"i": pl.Int64})


# --- split ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_random_goes_by_the_hash_of_the_rows_ordinal(apply: Apply, seed: int) -> None:
    made = apply(split(by="random", at="0.7 0.1", seed=seed), a=numbered(500)).frames
    fates = [xxh3(str(i).encode(), seed) / 2**64 for i in range(500)]
    assert list(made) == ["train", "valid", "test"]
    assert made["train"]["i"].to_list() == [i for i in range(500) if fates[i] < 0.7]
    assert made["valid"]["i"].to_list() == [i for i in range(500) if 0.7 <= fates[i] < 0.8]
    assert made["test"]["i"].to_list() == [i for i in range(500) if fates[i] >= 0.8]


@pytest.mark.parametrize(
    ("values", "canonical"),
    [
        (["a", "é", "user 7", "0123456789abcdef"], ["a", "é", "user 7", "0123456789abcdef"]),
        ([-5, 0, 2**40, 7], ["-5", "0", str(2**40), "7"]),
        ([True, False], ["true", "false"]),
        ([date(2026, 1, 31), date(1969, 12, 31)], ["2026-01-31", "1969-12-31"]),
        ([datetime(2026, 1, 1), datetime(1970, 1, 1, 0, 0, 1)], ["1767225600000000", "1000000"]),
    ],
)
def test_hash_goes_by_the_canonical_bytes_of_the_value(apply: Apply, values: list[Any], canonical: list[str]) -> None:
    frame = pl.DataFrame({"k": values * 3})
    made = apply(split(by="hash", column="k", at="0.5", into="left right", seed=9), a=frame).frames
    left = [v for v, c in zip(values, canonical, strict=True) if xxh3(c.encode(), 9) / 2**64 < 0.5]
    assert made["left"]["k"].to_list() == left * 3
    assert made["left"].height + made["right"].height == frame.height


def test_time_cuts_at_the_element_of_the_sorted_column_and_ties_stay_together(apply: Apply) -> None:
    frame = pl.DataFrame({"ts": [5, 1, 3, 3, 3, 2, 9, 4, 8, 7]})
    made = apply(split(by="time", column="ts", at="0.8"), a=frame).frames  # sorted: 1 2 3 3 3 4 5 7 [8] 9
    assert made["train"]["ts"].to_list() == [5, 1, 3, 3, 3, 2, 4, 7]
    assert made["test"]["ts"].to_list() == [9, 8]
    made = apply(split(by="time", column="ts", at="0.3"), a=frame).frames  # the element is one of three equal ones
    assert made["train"]["ts"].to_list() == [1, 2]


def test_time_takes_dates_too(apply: Apply) -> None:
    days = [date(2026, 1, d) for d in (3, 1, 2)]
    stamps = [datetime(2026, 1, d, 12, tzinfo=UTC) for d in (3, 1, 2)]
    for values in (days, stamps, [d.isoformat() for d in days]):
        made = apply(split(by="time", column="d", at="2026-01-02, 2026-01-03"), a=pl.DataFrame({"d": values})).frames
        assert [made[port]["d"].to_list() for port in ("train", "valid", "test")] == [
            [values[1]],
            [values[2]],
            [values[0]],
        ]
    zoned = pl.DataFrame({"d": stamps}).with_columns(pl.col("d").dt.convert_time_zone("Asia/Shanghai"))
    made = apply(split(by="time", column="d", at="2026-01-02T12:00"), a=zoned).frames
    assert made["train"].height == 1  # the cut is UTC


def test_a_date_column_is_cut_at_the_first_whole_day_after_a_moment(apply: Apply) -> None:
    frame = pl.DataFrame({"d": [date(2026, 1, 1), date(2026, 1, 2)]})
    made = apply(split(by="time", column="d", at="2026-01-01T12:00"), a=frame).frames
    assert (made["train"].height, made["test"].height) == (1, 1)


@pytest.mark.parametrize("attrs", [{"by": "hash"}, {"by": "time"}, {"by": "time", "at": "2026-01-02"}])
def test_a_null_in_the_column_is_an_error(apply: Apply, attrs: dict[str, str]) -> None:
    frame = pl.DataFrame({"k": ["2026-01-01", None]})
    with pytest.raises(DataError, match="step 'step': a row has no 'k', so no port can take them") as caught:
        apply(split(**{"column": "k", "at": "0.5", **attrs}), a=frame)
    assert caught.value.code == "OPER108"


def test_order_sends_the_first_rows_left(apply: Apply) -> None:
    made = apply(split(by="order", at="0.5 0.2", into="x y z"), a=pl.DataFrame({"i": [5, 3, 9]})).frames
    assert {port: part["i"].to_list() for port, part in made.items()} == {"x": [5, 3], "y": [9], "z": []}


def test_an_empty_frame_gives_empty_ports(apply: Apply) -> None:
    for attrs in ({"by": "random"}, {"by": "order"}, {"by": "hash", "column": "i"}, {"by": "time", "column": "i"}):
        made = apply(split(at="0.5", **attrs), a=numbered(0)).frames
        assert {port: part.height for port, part in made.items()} == {"train": 0, "test": 0}


def test_roles_reach_every_port(apply: Apply) -> None:
    infos = {"a": Schema((Column("i", role="slot"),), "plan")}
    made = apply(split(by="random", at="0.5"), infos, a=numbered(3)).infos
    assert all(isinstance(info, Schema) and info.with_role("slot") == ("i",) for info in made.values())


UNHASHABLE = "OPER102 column: column 'f' is double, not something that can be hashed"
TIMELESS = "OPER102 column: column 'l' is list<item: int64>, not a date, timestamp, number or string"


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"by": "time", "at": "0.8"}, "OPER104 column: a split by time needs the column that decides"),
        ({"by": "random", "column": "i", "at": "0.8"}, "OPER104 column: a split by random looks at no column"),
        ({"by": "random", "at": "80"}, "OPER104 at: shares lie between 0 and 1"),
        ({"by": "random", "at": "0.8 0.2"}, "OPER104 at: the shares add up to 1, so nothing is left"),
        ({"by": "random", "at": "most"}, "OPER104 at: 'most' is not a share"),
        ({"by": "random", "at": "2026-01-01"}, "OPER104 at: '2026-01-01' is not a share"),
        ({"by": "random", "at": ""}, "OPER104 at: it holds no share"),
        ({"by": "random", "at": "0.5", "into": "a b c"}, "OPER104 into: 1 cut gives 2 ports, not 3"),
        ({"by": "random", "at": "0.1 0.1 0.1"}, "OPER104 into: 3 cuts give 4 ports, which need names"),
        ({"by": "random", "at": "0.5", "into": "a a"}, "OPER103 into: 'a' is named twice"),
        ({"by": "hash", "column": "f", "at": "0.5"}, UNHASHABLE),
        ({"by": "hash", "column": "j", "at": "0.5"}, "OPER101 column: there is no column 'j'"),
        ({"by": "time", "column": "l", "at": "0.5"}, TIMELESS),
        ({"by": "time", "column": "i", "at": "2026-01-01"}, "OPER102 at: 'i' is int64, which cannot be cut at a date"),
        ({"by": "time", "column": "d", "at": "2026-01-02 2026-01-01"}, "OPER104 at: the dates are out of order"),
        ({"by": "time", "column": "d", "at": "2026-13-01"}, "OPER104 at: month must be in 1..12"),
    ],
)  # fmt: skip
def test_a_split_that_cannot_be_is_one_problem(attrs: dict[str, str], said: str) -> None:
    frame = pl.DataFrame({"i": [1], "f": [0.5], "l": [[1]], "d": [date(2026, 1, 1)]})
    assert faults(split(**attrs), a=frame) == [said]


columns = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30),
    st.lists(st.integers(-3, 3), max_size=30),
    st.lists(st.floats(width=64), max_size=30),
    st.lists(st.text(max_size=3), max_size=30),
    st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), max_size=30),
    st.lists(st.dates(date(1900, 1, 1), date(2200, 1, 1)), max_size=30),
)


def key(value: Any) -> Any:
    if isinstance(value, float):
        return (math.isnan(value), 0.0 if math.isnan(value) else value)
    return value.encode() if isinstance(value, str) else value


@settings(max_examples=120, deadline=None)
@given(columns, st.sampled_from(["0.5", "0.1", "0.8", "0.07", "0.333"]))
def test_time_equals_sorting_and_cutting(tmp_path_factory: Any, values: list[Any], at: str) -> None:
    frame = pl.DataFrame({"t": values}, strict=False) if values else pl.DataFrame({"t": []}, schema={"t": pl.Int64})
    made = applied(tmp_path_factory.getbasetemp(), split(by="time", column="t", at=at), {"a": frame}, {}).frames
    if not values:
        return
    ordered = sorted(map(key, values))
    cut = ordered[min(math.ceil(Fraction(at) * len(values)), len(values) - 1)]
    assert [key(v) for v in made["train"]["t"]] == [key(v) for v in values if key(v) < cut]
    assert [key(v) for v in made["test"]["t"]] == [key(v) for v in values if not key(v) < cut]


# --- sample ---------------------------------------------------------------------------------------------------


def test_a_rate_below_one_thins_and_keeps_order(apply: Apply) -> None:
    made = apply(sample(rate=0.25, seed=3, weight="w"), a=numbered(4000)).frame
    assert made["i"].is_sorted() and made["i"].n_unique() == made.height
    assert 880 < made.height < 1120
    assert set(made["w"]) == {4.0}
    other = apply(sample(rate=0.25, seed=4), a=numbered(4000)).frame
    assert set(other["i"]) != set(made["i"])


def test_a_rate_above_one_copies_side_by_side(apply: Apply) -> None:
    made = apply(sample(rate=2.5, weight="w"), a=numbered(2000)).frame
    counts = Counter(made["i"].to_list())
    assert set(counts.values()) == {2, 3} and made["i"].is_sorted()
    assert 880 < sum(count == 3 for count in counts.values()) < 1120
    assert set(made["w"]) == {0.4}


def test_rows_outside_where_pass_once_and_null_is_outside(apply: Apply) -> None:
    frame = pl.DataFrame({"label": [1, 0, None] * 400, "i": range(1200)})
    made = apply(sample(rate=0.5, where="label = 0", weight="w"), a=frame).frame
    assert made.filter(pl.col("label") == 1).height == 400
    assert made.filter(pl.col("label").is_null()).height == 400
    assert 150 < made.filter(pl.col("label") == 0).height < 250
    assert dict(made.select("label", "w").unique().rows()) == {1: 1.0, 0: 2.0, None: 1.0}


def test_a_whole_rate_copies_exactly_and_one_changes_nothing(apply: Apply) -> None:
    assert apply(sample(rate=3), a=numbered(2)).frame["i"].to_list() == [0, 0, 0, 1, 1, 1]
    assert apply(sample(rate=1), a=numbered(5)).frame["i"].to_list() == [0, 1, 2, 3, 4]
    assert apply(sample(rate=2, where="i = 1"), a=numbered(3)).frame["i"].to_list() == [0, 1, 1, 2]


def test_a_sample_and_a_split_with_one_seed_choose_apart(apply: Apply) -> None:
    kept = set(apply(sample(rate=0.5), a=numbered(2000)).frame["i"])
    train = set(apply(split(by="random", at="0.5"), a=numbered(2000)).frames["train"]["i"])
    assert 400 < len(kept & train) < 600


def test_a_taken_weight_name_is_a_problem() -> None:
    assert faults(sample(rate=0.5, weight="i"), a=numbered(1)) == ["OPER103 weight: there is a column 'i' already"]
    assert faults(sample(rate=0.5, where="i + 1"), a=numbered(1)) == [
        "OPER102 where: 'i + 1' is int64, not true or false"
    ]


def test_lists_and_strings_are_copied_whole(apply: Apply) -> None:
    frame = pl.DataFrame({"l": [[1, 2], None, []], "s": ["é", None, ""]})
    assert apply(sample(rate=2), a=frame).frame.rows() == [r for row in frame.rows() for r in (row, row)]
