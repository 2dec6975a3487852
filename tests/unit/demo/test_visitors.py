"""People who come and go: each day has new ones, none comes twice under another key, and the truth is known."""

from __future__ import annotations

import numpy as np

from penstock.demo.visitors import stream
from penstock.training.metrics import auc


def test_each_day_has_new_people_and_as_many_as_the_last() -> None:
    days = list(stream(days=12, impressions=20_000, arrivals=1_000, seed=3))
    seen: set[int] = set()
    for day in days:
        here = set(day.columns["user"].tolist())
        assert len(here - seen) == day.new_users
        seen |= here
    steady = [len(np.unique(day.columns["user"])) for day in days]
    assert max(steady) < 1.2 * min(steady), "a day's people stay about as many"
    assert all(600 < day.new_users < 1_600 for day in days[4:]), "while new ones keep coming"
    gone = set(days[0].columns["user"].tolist()) - {int(u) for d in days[1:] for u in d.columns["user"]}
    assert gone, "and some never return"


def test_days_are_in_order_and_the_truth_is_the_best_score() -> None:
    days = list(stream(days=2, impressions=50_000, arrivals=1_000))
    times = np.concatenate([day.time_s for day in days])
    assert (np.diff(times) >= 0).all() and times[-1] < 2 * 86_400
    for day in days:
        assert {len(column) for column in day.columns.values()} == {50_000}
        assert abs(day.chance.mean() - day.clicked.mean()) < 0.01
        assert auc(day.clicked.astype(np.float64), day.chance) > 0.8


def test_the_same_arguments_give_the_same_days() -> None:
    first, again = (list(stream(days=2, impressions=2_000, arrivals=100, seed=5)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.columns["user"], other.columns["user"])
        np.testing.assert_array_equal(one.clicked, other.clicked)
    assert not np.array_equal(first[0].clicked, next(stream(2, 2_000, 100, seed=6)).clicked)
