"""Visitors of a live service, whose taste changes one day: pages of ten items, and the true chance of each click.

Visitors come, look at a few pages, and leave; new ones come with keys that nobody has seen. The chance of a click is
that of `simulator.py`, with tastes that say more and a little of each visitor's own. `change_taste` turns them
round: the categories that were most in demand are least, and the young like what the old liked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from penstock.demo.simulator import CATEGORIES, DEVICES, World, build_world, click_log_odds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

#: Items a page.
PLACES = 10
PEOPLE, ITEMS, HERE = 5_000, 600, 400
#: How likely a visitor has left after a page.
LEAVES = 0.08
#: How much more than in `simulator.py` taste says; the deviation of a visitor's own part of the log-odds.
TASTE, OWN = 1.3, 0.3
#: Of the log-odds: fewer clicks than not, as everywhere.
LEVEL = -0.3
_NOON = 12


@dataclass(frozen=True)
class Page:
    """Ten items shown to one visitor. `visitor`: the columns that all rows share; `items`: columns of ten; `chance`:
    the true probability of a click on each, f64 [10]."""

    visitor: dict[str, Any]
    items: dict[str, list[Any]]
    chance: Floats


class Crowd:
    """Same seed, same pages."""

    def __init__(self, seed: int = 7) -> None:
        self._rng = rng = np.random.default_rng(seed)
        world = build_world(rng, users=PEOPLE, items=ITEMS, positions=PLACES)
        self.world = replace(
            world, category_appeal=world.category_appeal * TASTE, age_taste=world.age_taste * TASTE
        )  # fmt: skip
        popularity = np.arange(1, ITEMS + 1, dtype=np.float64) ** -0.6
        self._popularity = popularity / popularity.sum()
        self._items = {name: world.items[name].to_list() for name in ("item_id", "category", "price", "quality")}
        self._people = {name: world.users[name].to_list() for name in ("age", "city_tier", "interests")}
        self._key = np.arange(HERE)
        self._person = rng.integers(0, PEOPLE, HERE)
        self._own = rng.normal(0, OWN, HERE)
        #: Visitors there have been.
        self.seen = HERE

    def change_taste(self) -> None:
        """From the next page on, other things are liked, and by others."""
        self.world = turned(self.world)

    def page(self) -> Page:
        """The next page that somebody opens."""
        rng, world = self._rng, self.world
        who = int(rng.integers(HERE))
        person, device = int(self._person[who]), int(rng.integers(len(DEVICES)))
        item = rng.choice(ITEMS, PLACES, replace=False, p=self._popularity)
        place = np.arange(1, PLACES + 1)
        same = np.ones(PLACES, np.int64)
        odds = click_log_odds(
            world, person * same, item, place, device * same, _NOON * same, np.zeros(PLACES)
        )  # fmt: skip
        chance = 1 / (1 + np.exp(-(odds + LEVEL + self._own[who])))
        visitor = {
            "visitor": f"v{self._key[who]:07d}", "age": self._people["age"][person],
            "tier": self._people["city_tier"][person], "interests": self._people["interests"][person],
            "device": DEVICES[device],
        }  # fmt: skip
        items: dict[str, list[Any]] = {"item": [self._items["item_id"][i] for i in item], "position": place.tolist()}
        items |= {name: [self._items[name][i] for i in item] for name in ("category", "price", "quality")}
        if rng.random() < LEAVES:
            self._key[who], self._person[who] = self.seen, rng.integers(PEOPLE)
            self._own[who] = rng.normal(0, OWN)
            self.seen += 1
        return Page(visitor, items, chance)

    def clicks(self, page: Page) -> NDArray[np.bool_]:
        """Which of its items the visitor clicks."""
        clicked: NDArray[np.bool_] = self._rng.random(PLACES) < page.chance
        return clicked

    def history(self, pages: int) -> pl.DataFrame:
        """What visitors did before the loop was there: rows with `ts` (their number), `label`, `chance`."""
        columns: dict[str, list[Any]] = {}
        for page in (self.page() for _ in range(pages)):
            shared = {name: [value] * PLACES for name, value in page.visitor.items()}
            found = {"label": self.clicks(page).astype(np.int64).tolist(), "chance": page.chance.tolist()}
            for name, values in {**shared, **page.items, **found}.items():
                columns.setdefault(name, []).extend(values)
        return pl.DataFrame(columns, schema_overrides={"age": pl.Int64}).with_row_index("ts")


def turned(world: World) -> World:
    """The same world with other tastes: categories' appeal in the opposite order, and age groups change places."""
    order = np.argsort(world.category_appeal)
    appeal = np.empty(len(CATEGORIES))
    appeal[order] = world.category_appeal[order][::-1]
    return replace(world, category_appeal=appeal, age_taste=world.age_taste[:, ::-1])
