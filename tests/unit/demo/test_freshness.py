"""A click is fresh when a reply covers its sample: not when it was learnt, nor when its delta was written."""

from __future__ import annotations

from penstock.demo.freshness import Freshness


def test_a_click_counts_from_its_own_time_to_the_first_reply_that_covers_its_sample() -> None:
    fresh = Freshness()
    fresh.clicked("a/0", 1_000.0)
    fresh.sampled("a/0", 1, 7)
    fresh.published((1, 4), {0: 99, 1: 7})  # up to offset 7, without it
    fresh.replied((1, 4), 1_200.0)
    assert fresh.take() == [] and fresh.waiting == 1
    fresh.published((1, 5), {0: 99, 1: 8})
    assert fresh.take() == [], "nobody was answered at that place yet"
    fresh.replied((1, 6), 1_500.0)
    fresh.replied((1, 6), 1_900.0)
    assert fresh.take() == [(1_000.0, 0.5)] and fresh.take() == [] and fresh.waiting == 0


def test_replies_may_be_seen_before_the_delta_they_stand_at() -> None:
    fresh = Freshness()
    fresh.clicked("a/0", 1_000.0)
    for sequence, at_ms in ((1, 1_100.0), (2, 1_250.0), (3, 1_400.0)):
        fresh.replied((1, sequence), at_ms)
    fresh.sampled("a/0", 0, 0)
    fresh.published((1, 1), {0: 0})
    fresh.published((1, 2), {0: 5})
    assert fresh.take() == [(1_000.0, 0.25)]


def test_a_later_generation_is_beyond_every_sequence_of_an_earlier_one() -> None:
    fresh = Freshness()
    fresh.clicked("a/0", 0.0)
    fresh.sampled("a/0", 0, 3)
    fresh.published((2, 1), {0: 4})
    fresh.replied((1, 900), 100.0)
    assert fresh.take() == []
    fresh.replied((2, 1), 200.0)
    assert fresh.take() == [(0.0, 0.2)]


def test_samples_of_nobodys_click_are_passed_over() -> None:
    fresh = Freshness()
    fresh.sampled("x/0", 0, 0)
    fresh.published((1, 1), {0: 1})
    fresh.replied((1, 1), 5.0)
    assert fresh.take() == [] and fresh.waiting == 0
