"""Visitors whose true chances are known: the best ranking before their taste changes is a bad one after."""

from __future__ import annotations

import numpy as np

from penstock.demo.crowd import HERE, PLACES, Crowd
from penstock.training.metrics import auc


def test_the_same_seed_gives_the_same_pages() -> None:
    first, again, other = Crowd(3), Crowd(3), Crowd(4)
    for _ in range(20):
        page, same = first.page(), again.page()
        assert page.visitor == same.visitor and page.items == same.items
        np.testing.assert_array_equal(page.chance, same.chance)
        np.testing.assert_array_equal(first.clicks(page), again.clicks(same))
    assert Crowd(3).page().visitor != other.page().visitor


def test_history_is_what_its_chances_say_and_new_visitors_keep_coming() -> None:
    crowd = Crowd()
    rows = crowd.history(2_000)
    assert rows.height == 2_000 * PLACES and rows["ts"].to_list() == list(range(rows.height))
    assert abs(rows["label"].mean() - rows["chance"].mean()) < 0.01  # type: ignore[operator]
    found = auc(rows["label"].to_numpy().astype(float), rows["chance"].to_numpy())
    assert found is not None and 0.75 < found < 0.85
    assert crowd.seen > HERE + 100 and rows["visitor"].n_unique() > HERE


def test_when_tastes_change_what_was_best_is_best_no_more() -> None:
    crowd, changed = Crowd(), Crowd()
    changed.change_taste()
    as_it_was, pages = [], []
    for _ in range(1_500):
        as_it_was.append(crowd.page().chance)
        pages.append(changed.page())
    now = np.concatenate([page.chance for page in pages])
    clicked = np.concatenate([changed.clicks(page) for page in pages]).astype(float)
    stale, best = auc(clicked, np.concatenate(as_it_was)), auc(clicked, now)
    assert stale is not None and best is not None
    assert best > 0.73 and stale < best - 0.08
