"""The simulator keeps its promises: a known best, crosses a linear model cannot see, logs as messy as real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from penstock.demo.simulator import Logs, simulate


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    return simulate(tmp_path_factory.mktemp("logs"), impressions=60_000)


def joined(logs: Logs) -> pl.DataFrame:
    shown = pl.read_csv(logs.folder / "impressions" / "**" / "*.csv").unique("impression_id", maintain_order=True)
    clicks = pl.read_ndjson(logs.folder / "clicks.json").select("impression_id").unique().with_columns(label=1)
    return (
        shown.join(clicks, on="impression_id", how="left", maintain_order="left")
        .join(pl.read_csv(logs.folder / "users.csv"), on="user_id", how="left", maintain_order="left")
        .join(pl.read_csv(logs.folder / "items.csv"), on="item_id", how="left", maintain_order="left")
        .join(logs.truth, on="impression_id", how="left", maintain_order="left")
        .with_columns(pl.col("label").fill_null(0))
    )


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    first = simulate(tmp_path / "a", impressions=2_000, seed=3)
    second = simulate(tmp_path / "b", impressions=2_000, seed=3)
    names = sorted(p.relative_to(first.folder) for p in first.folder.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(second.folder) for p in second.folder.rglob("*") if p.is_file())
    assert all((first.folder / n).read_bytes() == (second.folder / n).read_bytes() for n in names)
    assert first.truth.equals(second.truth)
    assert not simulate(tmp_path / "c", impressions=2_000, seed=4).truth.equals(first.truth)


def test_the_oracle_is_good_but_not_perfect(logs: Logs) -> None:
    table = joined(logs)
    assert 0.70 <= roc_auc_score(table["label"], table["p"]) <= 0.80
    assert table["label"].mean() == pytest.approx(table["p"].mean(), abs=0.005)


def test_a_hashed_linear_model_without_crosses_misses_at_least_8_percent_of_the_lift(logs: Logs) -> None:
    table = joined(logs)
    columns = ["item_id", "category", "brand", "city", "gender", "device", "network", "position", "age", "interests"]
    steps = table.with_columns(hour=pl.col("ts").str.slice(11, 2), stars=pl.col("quality").round(0))
    rows = [
        [f"{name}={value}" for name, value in zip([*columns, "hour", "stars"], row, strict=True)]
        for row in steps.select(*columns, "hour", "stars").iter_rows()
    ]
    keys = FeatureHasher(2**18, input_type="string", alternate_sign=False).transform(rows)
    label, cut = table["label"].to_numpy(), int(len(rows) * 0.8)
    linear = LogisticRegression(C=0.05, max_iter=300).fit(keys[:cut], label[:cut])
    lift = roc_auc_score(label[cut:], linear.decision_function(keys[cut:])) - 0.5
    best = roc_auc_score(label[cut:], table["p"][cut:]) - 0.5
    assert 0.3 * best < lift <= 0.92 * best


def test_logs_are_as_messy_as_real_ones(logs: Logs) -> None:
    shown = pl.read_csv(logs.folder / "impressions" / "**" / "*.csv")
    clicks = pl.read_ndjson(logs.folder / "clicks.json")
    assert shown["impression_id"].is_duplicated().any()
    assert clicks["impression_id"].is_duplicated().any()
    assert len(clicks.join(shown, on="impression_id", how="anti")) > 0
    assert pl.read_csv(logs.folder / "users.csv")["age"].null_count() > 0
    assert (pl.read_csv(logs.folder / "items.csv")["price"] < 0).any()
    assert len(list((logs.folder / "impressions").glob("dt=*"))) == 7


def test_users_and_items_follow_a_power_law(logs: Logs) -> None:
    counts = np.sort(joined(logs)["item_id"].value_counts()["count"].to_numpy())[::-1]
    assert counts[: len(counts) // 10].sum() > 0.25 * counts.sum()
