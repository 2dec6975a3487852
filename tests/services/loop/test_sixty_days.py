"""Bounded for ever: with new people and items every day, neither rows nor memory nor disk nor freshness grow.

`PENSTOCK_SOAK_DAYS` sets the days (60; 24 take some three minutes, fewer are too few),
`PENSTOCK_SOAK_DIR` where all lies.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch")

from penstock.demo.visitors import Day, stream

from .days import BATCH, Days, Figures, frame

DAYS = int(os.environ.get("PENSTOCK_SOAK_DAYS", "60"))
TTL_DAYS = 7
#: A day is so many full batches of impressions, so that at its end everything is learnt, and lasts so long.
IMPRESSIONS, ARRIVALS, A_DAY_S = 256 * BATCH, 8_000, 6.0
#: A version every other day. The registry is cleared of those that nobody needs every so many days.
BASE_S, CLEARED_EVERY = 12.0, 5


def days() -> Iterator[Day]:
    return stream(DAYS, IMPRESSIONS, ARRIVALS)


def lived(folder: Path, ttl_days: int, *, followed: bool) -> list[Figures]:
    """What each day cost, of a model of the first one that then lives through all the others."""
    coming = days()
    first = next(coming)
    found: list[Figures] = []
    with Days(folder, first, ttl_days, followed=followed, base_s=BASE_S) as loop:
        for day in coming:
            found.append(loop.live(day, A_DAY_S if followed else 0.0))
            print(found[-1], flush=True)
            if followed and day.number % CLEARED_EVERY == 0:
                loop.clear()
        if followed:
            # People of the first day, most of whom are gone, and of the last.
            learnt, served = loop.stop(pl.concat([frame(first).head(2000), frame(day).head(2000)]))
            np.testing.assert_allclose(served, learnt, atol=1e-5)
    return found


def third(found: Sequence[Figures], which: int, name: str) -> list[float]:
    bounds = [len(found) * part // 3 for part in range(4)]
    return [getattr(day, name) for day in found[bounds[which] : bounds[which + 1]]]


@pytest.mark.soak
def test_new_people_and_items_every_day_make_nothing_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MODEL_CACHE_BYTES", str(64 << 20))
    place = Path(os.environ.get("PENSTOCK_SOAK_DIR", tmp_path)) / "sixty-days"
    try:
        kept = lived(place / "kept", 0, followed=False)
        left = lived(place / "left", TTL_DAYS, followed=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(told(kept, left))

    # Days differ by a percent; a night's cut, version and tombstones come and go within a third, so its most counts.
    for name, of, share in (
        ("rows", np.mean, 0.03),
        ("trainer_mb", max, 0.05),
        ("host_mb", max, 0.05),
        ("cuts_mb", max, 0.10),
        ("chain_mb", max, 0.10),
        ("registry_mb", max, 0.10),
        ("p95_s", np.median, 1.0),  # of machines that others use too
    ):
        middle, last = of(third(left, 1, name)), of(third(left, 2, name))
        assert last <= middle * (1 + share), f"{name}: {middle:g} in the middle third of the days, {last:g} in the last"
    assert kept[-1].rows > 2 * left[-1].rows and left[-1].rebased > 0 and min(third(left, 2, "gone")) > 0
    aucs = [np.mean([day.auc for day in found[TTL_DAYS:]]) for found in (kept, left)]
    assert abs(aucs[0] - aucs[1]) <= 0.002, f"without eviction {aucs[0]:.4f}, with it {aucs[1]:.4f}"


def told(kept: Sequence[Figures], left: Sequence[Figures]) -> str:
    """A line a day; what stands behind the bar is of the run without eviction."""
    lines = [
        f"{day.day + 1:3} {day.rows:8,} rows {day.laid:8,} laid {day.gone:7,} gone, trainer {day.trainer_mb:4.0f} MB "
        f"host {day.host_mb:4.0f} cuts {day.cuts_mb:4.0f} chain {day.chain_mb:4.1f} registry {day.registry_mb:4.0f}, "
        f"rebased {day.rebased:2}, p50 {day.p50_s:.2f} p95 {day.p95_s:.2f} worst {day.worst_s:.2f}, AUC {day.auc:.4f} "
        f"| {other.rows:8,} rows, trainer {other.trainer_mb:4.0f} MB, AUC {other.auc:.4f}"
        for day, other in zip(left, kept, strict=True)
    ]
    return "\n".join(["", *lines])
