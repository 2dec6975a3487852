"""A click-stream with known true probabilities, written as the raw logs a ranking team really has.

Users, items and contexts follow power laws. The true probability of a click is a logistic function of logged
columns alone: main effects (position bias, quality, price, category, city tier), planted crosses (category x age,
category x hour, device x position, interest match, price x tier) and a slow drift of the categories' appeal over
the days. So the AUC of the true probabilities, the oracle's, is the best any model can do on these logs.

The logs are messy the way logs are: some impressions are logged twice, some clicks twice or without an impression,
some users have no age, and a few prices are negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

CATEGORIES = (
    "news",
    "sports",
    "music",
    "film",
    "games",
    "food",
    "travel",
    "fashion",
    "tech",
    "health",
)
DEVICES = ("android", "ios", "web", "tablet")
NETWORKS = ("wifi", "5g", "4g")
CITY_TIERS = 4
TIME = "%Y-%m-%dT%H:%M:%S%.3f"
#: The age groups whose taste differs: their upper ends, in years.
AGE_BOUNDS = (22, 30, 40, 55)
#: The parts of the day whose taste differs: their first hours.
HOUR_BOUNDS = (7, 12, 18)


@dataclass(frozen=True)
class World:
    """Who and what there is, and the hidden effects; drawn once from the seed."""

    users: pl.DataFrame
    items: pl.DataFrame
    user_age: Ints  # (users,) years
    user_tier: Ints  # (users,) 0..3
    user_interests: NDArray[np.bool_]  # (users, categories)
    item_category: Ints  # (items,)
    item_price: Floats
    item_quality: Floats
    category_appeal: Floats  # (categories,)
    category_drift: Floats  # (categories,) change of the log-odds a day
    age_taste: Floats  # (categories, age groups)
    hour_taste: Floats  # (categories, parts of the day)
    device_position: Floats  # (devices, positions)
    tier_price: Floats  # (tiers,) slope of log price


@dataclass(frozen=True)
class Logs:
    """Where the logs lie, and the truth about each impression: columns impression_id, p (f64)."""

    folder: Path
    truth: pl.DataFrame
    impressions: int
    clicks: int


def _power_law(rng: np.random.Generator, n: int, size: int, exponent: float) -> Ints:
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return rng.choice(n, size=size, p=weights / weights.sum())


def build_world(rng: np.random.Generator, users: int = 20_000, items: int = 4_000, positions: int = 10) -> World:
    """Draw users, items and the hidden effects."""
    categories = len(CATEGORIES)
    age = np.clip(rng.normal(36, 14, users).round(), 13, 80).astype(np.int64)
    tier = rng.choice(CITY_TIERS, users, p=[0.35, 0.3, 0.2, 0.15])
    interests = np.zeros((users, categories), dtype=bool)
    for _ in range(3):  # one to three interests each, the popular ones more often
        interests[np.arange(users), _power_law(rng, categories, users, 0.6)] = True
    category = _power_law(rng, categories, items, 0.5)
    price = np.exp(rng.normal(3.0, 1.0, items)).round(2)
    quality = np.clip(rng.beta(5, 2, items) * 5, 0, 5).round(1)
    city = np.array([f"city_{t}_{c}" for t, c in zip(tier, _power_law(rng, 40, users, 1.0), strict=True)])
    signs = np.where(np.arange(positions) < 3, 1.0, -0.3)
    world_users = pl.DataFrame(
        {
            "user_id": [f"u{i:06d}" for i in range(users)],
            "age": [None if hidden else int(a) for a, hidden in zip(age, rng.random(users) < 0.03, strict=True)],
            "gender": rng.choice(["f", "m", "x"], users, p=[0.48, 0.48, 0.04]),
            "city": city,
            "city_tier": tier,
            "interests": ["|".join(CATEGORIES[c] for c in np.flatnonzero(row)) for row in interests],
        }
    )
    # A hidden age is a group of its own for the truth too: the probability depends on what is logged.
    logged_age = np.where(world_users["age"].is_null().to_numpy(), 13, age)
    world_items = pl.DataFrame(
        {
            "item_id": [f"i{i:05d}" for i in range(items)],
            "category": [CATEGORIES[c] for c in category],
            "brand": [f"b{b:03d}" for b in _power_law(rng, 300, items, 0.8)],
            "price": price,
            "quality": quality,
        }
    )
    return World(
        world_users,
        world_items,
        logged_age,
        tier,
        interests,
        category,
        price,
        quality,
        category_appeal=rng.normal(0, 0.45, categories),
        category_drift=rng.normal(0, 0.02, categories),
        age_taste=rng.normal(0, 0.45, (categories, len(AGE_BOUNDS) + 1)),
        hour_taste=rng.normal(0, 0.3, (categories, len(HOUR_BOUNDS) + 1)),
        device_position=rng.normal(0, 0.25, (len(DEVICES), 1)) * signs,
        tier_price=np.linspace(-0.45, 0.25, CITY_TIERS),
    )


def click_log_odds(
    world: World, user: Ints, item: Ints, position: Ints, device: Ints, hour: Ints, day: Floats
) -> Floats:
    """The true log-odds of a click, (n,), from logged columns only. `position` from 1; `day` = days since the start."""
    category = world.item_category[item]
    age_group = np.searchsorted(AGE_BOUNDS, world.user_age[user], side="right")
    part = np.searchsorted(HOUR_BOUNDS, hour, side="right")
    price = np.log(world.item_price[item]) - 3.0
    main = (
        -1.55
        - 0.6 * np.log(position)
        + 0.6 * (world.item_quality[item] - 3.5)
        + world.category_appeal[category]
        + world.category_drift[category] * day
    )
    crosses = (
        world.age_taste[category, age_group]
        + world.hour_taste[category, part]
        + world.device_position[device, position - 1]
        + 0.8 * world.user_interests[user, category]
        + world.tier_price[world.user_tier[user]] * price
    )
    return main + crosses


def simulate(
    folder: Path, impressions: int = 200_000, days: int = 7, seed: int = 7, start: datetime | None = None
) -> Logs:
    """Write `impressions/dt=DAY/part-0.csv`, `clicks.json`, `users.csv`, `items.csv` under `folder`.

    Returns the truth, which is written nowhere a flow would read it. Same arguments, same bytes.
    """
    rng = np.random.default_rng(seed)
    world = build_world(rng)
    positions = 10
    start = start or datetime(2026, 3, 2, tzinfo=UTC)
    seconds = np.sort(rng.uniform(0, days * 86_400, impressions * 2))
    # People sleep: an impression at hour h is kept by the day's rhythm.
    rhythm = 0.25 + 0.75 * np.clip(np.sin((seconds / 3_600 % 24 - 7) / 24 * 2 * np.pi) * 0.5 + 0.5, 0, 1)
    kept = np.flatnonzero(rng.random(len(seconds)) < rhythm / rhythm.max())
    seconds = seconds[np.sort(rng.choice(kept, min(impressions, len(kept)), replace=False))]
    n = len(seconds)
    user = _power_law(rng, len(world.users), n, 0.7)
    item = _power_law(rng, len(world.items), n, 0.6)
    position = rng.integers(1, positions + 1, n)
    device = rng.choice(len(DEVICES), n, p=[0.5, 0.25, 0.18, 0.07])
    hour = (seconds // 3_600 % 24).astype(np.int64)
    odds = click_log_odds(world, user, item, position, device, hour, seconds / 86_400)
    p = 1 / (1 + np.exp(-odds))
    clicked = rng.random(n) < p
    times = [start + timedelta(seconds=float(s)) for s in seconds.round(3)]
    shown = pl.DataFrame(
        {
            "impression_id": [f"m{i:08d}" for i in range(n)],
            "ts": pl.Series(times).dt.replace_time_zone(None).dt.strftime(TIME),
            "user_id": world.users["user_id"].gather(user),
            "item_id": world.items["item_id"].gather(item),
            "position": position,
            "device": np.array(DEVICES)[device],
            "network": rng.choice(NETWORKS, n, p=[0.6, 0.25, 0.15]),
        }
    )
    thought_s = pl.Series("thought_s", np.ceil(rng.exponential(8.0, int(clicked.sum()))))
    clicks = shown.filter(pl.Series(clicked)).select(
        "impression_id",
        (pl.col("ts").str.to_datetime() + pl.duration(seconds=pl.lit(thought_s))).dt.strftime(TIME).alias("ts"),
    )
    _write(folder, world, shown, clicks, rng)
    return Logs(folder, shown.select("impression_id").with_columns(p=pl.Series(p)), n, int(clicked.sum()))


def _write(folder: Path, world: World, shown: pl.DataFrame, clicks: pl.DataFrame, rng: np.random.Generator) -> None:
    """Write the logs with the mess of real ones."""
    folder.mkdir(parents=True, exist_ok=True)
    items = world.items.with_columns(
        price=pl.when(pl.Series(rng.random(len(world.items)) < 0.002)).then(-1.0).otherwise(pl.col("price"))
    )
    world.users.write_csv(folder / "users.csv")
    items.write_csv(folder / "items.csv")
    twice = shown.filter(pl.Series(rng.random(len(shown)) < 0.005))
    shown = pl.concat([shown, twice]).sort("ts", "impression_id")
    for (day,), part in shown.group_by(pl.col("ts").str.head(10), maintain_order=True):
        target = folder / "impressions" / f"dt={day}"
        target.mkdir(parents=True, exist_ok=True)
        part.write_csv(target / "part-0.csv")
    orphans = clicks.head(50).with_columns(impression_id=pl.lit("m-") + pl.col("impression_id"))
    again = clicks.filter(pl.Series(rng.random(len(clicks)) < 0.01))
    pl.concat([clicks, again, orphans]).sort("ts", "impression_id").write_ndjson(folder / "clicks.json")
