"""The simulator's world with people who come and go: new users every day, most of whom never return.

A visitor has the age, tier and interests of one of the world's people, a key of his own, and a readiness to click that
only his own clicks tell. Seven of ten stay for their first day; the others for 12 days on average, coming on four days
of ten. So a day's number of people is steady while the number of keys ever seen grows for as long as one looks: what
tables of embeddings meet in the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from penstock.demo.simulator import AGE_BOUNDS, DEVICES, World, build_world, click_log_odds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

POSITIONS = 10
STAYING = 0.3
MEAN_STAY_DAYS = 12.0
COMES_AGAIN = 0.4
#: Deviation of a visitor's own part of the log-odds.
READINESS = 1.0
#: How unequally they look around: the deviation of the log of a visitor's share of the day's impressions.
UNEQUAL = 1.0
PRICE_BOUNDS = (5.0, 10.0, 20.0, 40.0, 80.0)


@dataclass(frozen=True)
class Day:
    """One day's impressions in order of time, each array (n,)."""

    number: int
    time_s: Ints  # since the start of the first day
    columns: Mapping[str, Ints]  # what is logged, by name; `user` is the visitor's key
    chance: Floats  # the true probability of a click
    clicked: NDArray[np.bool_]
    new_users: int  # visitors of this day who were never seen before


def stream(days: int = 30, impressions: int = 300_000, arrivals: int = 12_000, seed: int = 7) -> Iterator[Day]:
    """`days` days of `impressions` each; `arrivals` people come for the first time each day, as many as leave.

    The first day finds those who would be there had it always gone on so. Same arguments, same days.
    """
    rng = np.random.default_rng(seed)
    world = build_world(rng, positions=POSITIONS)
    residents = round(arrivals * STAYING * MEAN_STAY_DAYS)
    there = _People.drawn(rng, world, 0, residents, staying=1.0)
    for day in range(days):
        first = residents + day * arrivals
        there = there.joined(_People.drawn(rng, world, first, arrivals, STAYING))
        here = (rng.random(len(there.key)) < COMES_AGAIN) | (there.key >= first)
        share = np.where(here, there.zeal, 0.0)
        visitor = rng.choice(len(share), impressions, p=share / share.sum())
        came = np.unique(visitor)
        new_users = int((~there.seen[came]).sum())
        there.seen[came] = True
        yield _day(rng, world, day, there, visitor, new_users)
        there = there.after_a_day()


@dataclass(frozen=True)
class _People:
    """Who may come, each array (n,) in order of key."""

    key: Ints
    person: Ints  # of the world, whose traits these are
    stay: Ints  # days left
    zeal: Floats
    readiness: Floats
    seen: NDArray[np.bool_]

    @staticmethod
    def drawn(rng: np.random.Generator, world: World, first: int, n: int, staying: float) -> _People:
        return _People(
            key=np.arange(first, first + n),
            person=rng.integers(0, len(world.user_age), n),
            stay=np.where(rng.random(n) < staying, rng.geometric(1 / MEAN_STAY_DAYS, n), 1),
            zeal=np.exp(rng.normal(0, UNEQUAL, n)),
            readiness=rng.normal(0, READINESS, n),
            seen=np.zeros(n, bool),
        )

    def joined(self, others: _People) -> _People:
        columns = zip(vars(self).values(), vars(others).values(), strict=True)
        return _People(*(np.concatenate(pair) for pair in columns))

    def after_a_day(self) -> _People:
        left = _People(*(column[self.stay > 1] for column in vars(self).values()))
        left.stay[:] -= 1
        return left


def _day(rng: np.random.Generator, world: World, day: int, people: _People, visitor: Ints, new_users: int) -> Day:
    n, person = len(visitor), people.person[visitor]
    seconds = np.sort(rng.uniform(0, 86_400, n))
    weights = np.arange(1, len(world.item_price) + 1, dtype=np.float64) ** -0.6
    item = rng.choice(len(weights), n, p=weights / weights.sum())
    position = rng.integers(1, POSITIONS + 1, n)
    device = rng.choice(len(DEVICES), n, p=[0.5, 0.25, 0.18, 0.07])
    hour = (seconds // 3_600).astype(np.int64)
    odds = click_log_odds(world, person, item, position, device, hour, day + seconds / 86_400)
    chance = 1 / (1 + np.exp(-odds - people.readiness[visitor]))
    columns = {
        "user": people.key[visitor],
        "item": item,
        "category": world.item_category[item],
        "price": np.searchsorted(PRICE_BOUNDS, world.item_price[item], side="right"),
        "position": position,
        "device": device,
        "hour": hour,
        "age": np.searchsorted(AGE_BOUNDS, world.user_age[person], side="right"),
        "tier": world.user_tier[person],
    }
    return Day(day, day * 86_400 + seconds.astype(np.int64), columns, chance, rng.random(n) < chance, new_users)
