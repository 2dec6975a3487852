"""The point-in-time join tells what the definition says, for any events and samples, and nothing from the future."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import DataError, RequestError
from penstock.features.views import point_in_time

from .views_cases import expected, shop

USERS = ["ann", "bob", "", "Zoë"]
SECONDS = st.integers(-100, 200)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from([*USERS, None]),
            "s": st.one_of(SECONDS, st.sampled_from([0, 30, 60]), st.none()),
            "city": st.sampled_from(["Rome", "Oslo", "", None]),
            # Whole cents, so that the brute force can add them exactly.
            "price": st.one_of(st.none(), st.integers(-10_000, 10_000).map(lambda cents: cents / 100)),
            "pieces": st.one_of(st.none(), st.integers(-3, 1 << 40)),
            "new": st.sampled_from([True, False, None]),
        }
    ),
    max_size=40,
)
SAMPLES = st.lists(
    st.tuples(st.sampled_from([*USERS, "nobody", None]), st.one_of(st.none(), SECONDS)), min_size=1, max_size=30
)
TYPES: dict[str, Any] = {
    "user_id": pl.String, "s": pl.Int64, "city": pl.String, "price": pl.Float64, "pieces": pl.Int64, "new": pl.Boolean,
}  # fmt: skip


def written(folder: Path, events: list[dict[str, Any]]) -> str:
    frame = pl.DataFrame(events, schema=TYPES).with_columns(at=pl.from_epoch(pl.col("s"), time_unit="s"))
    half = len(events) // 2
    frame[:half].write_parquet(folder / "events-1.parquet")
    frame[half:].write_parquet(folder / "events-2.parquet")
    return f'type="parquet" path="{folder}/events-*.parquet" time="at"'


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, samples=SAMPLES, ttl=st.sampled_from([None, 1, 20, 90]))
def test_every_row_is_what_brute_force_says(
    events: list[dict[str, Any]], samples: list[tuple[str | None, int | None]], ttl: int | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        view = shop(folder, written(folder, events), f"{ttl}s" if ttl else "")
        rows = pl.LazyFrame({"user_id": [u for u, _ in samples], "s": [s for _, s in samples]}, schema_overrides=TYPES)
        joined = point_in_time(rows, [view], folder / "out.parquet", time="s", unit="s").collect()
    assert joined.columns == ["user_id", "s", *view.outputs]
    told = joined.select(list(view.outputs)).to_dicts()
    assert told == [expected(events, user, s, ttl) for user, s in samples]


def test_an_event_at_the_sample_s_own_time_is_known_and_one_a_microsecond_later_is_not(tmp_path: Path) -> None:
    at = [1_000_000, 1_000_001]
    events = pl.DataFrame({
        "user_id": ["u", "u"], "t": at, "city": ["Rome", "Oslo"], "price": [1.0, 2.0], "pieces": [1, 1],
        "new": [True, True],
    })  # fmt: skip
    events.write_parquet(tmp_path / "e.parquet")
    view = shop(tmp_path, 'type="parquet" path="e.parquet" time="t" unit="us"')
    samples = pl.LazyFrame({"user_id": ["u"] * 3, "t": [999_999, *at]})
    joined = point_in_time(samples, [view], tmp_path / "o.parquet", time="t", unit="us").collect()
    assert joined["city"].to_list() == [None, "Rome", "Oslo"]
    assert joined["clicks"].to_list() == [0, 1, 2]


def test_rows_come_back_in_order_whatever_part_they_went_through(tmp_path: Path) -> None:
    users = [f"user-{n % 997}" for n in range(150_000)]
    events = pl.DataFrame({
        "user_id": [f"user-{n}" for n in range(997)], "t": [0] * 997, "city": [f"city-{n}" for n in range(997)],
        "price": [0.5] * 997, "pieces": [1] * 997, "new": [True] * 997,
    })  # fmt: skip
    events.write_parquet(tmp_path / "e.parquet")
    view = shop(tmp_path, 'type="parquet" path="e.parquet" time="t" unit="s"')
    samples = pl.LazyFrame({"user_id": users, "n": range(150_000), "t": [1] * 150_000})
    joined = point_in_time(samples, [view], tmp_path / "o.parquet", time="t", unit="s").collect()
    assert joined["n"].to_list() == list(range(150_000))
    assert joined["city"].to_list() == [f"city-{n % 997}" for n in range(150_000)]


def test_what_cannot_be_joined_is_said_before_anything_is_written(tmp_path: Path) -> None:
    view = shop(tmp_path, written(tmp_path, []))
    target = tmp_path / "o.parquet"
    with pytest.raises(RequestError, match=r"VIEW012 .*gives 'city', which the samples have too"):
        point_in_time(pl.LazyFrame({"user_id": ["u"], "t": [1], "city": ["x"]}), [view], target, time="t", unit="s")
    with pytest.raises(DataError, match="VIEW025 there is no column 'user_id'"):
        point_in_time(pl.LazyFrame({"t": [1]}), [view], target, time="t", unit="s")
    with pytest.raises(DataError, match="VIEW025 column 'user_id' is Int64, and the view says str"):
        point_in_time(pl.LazyFrame({"user_id": [7], "t": [1]}), [view], target, time="t", unit="s")
    with pytest.raises(DataError, match="VIEW025 't' is Int64, which is no time"):
        point_in_time(pl.LazyFrame({"user_id": ["u"], "t": [1]}), [view], target, time="t")
    assert not target.exists()
