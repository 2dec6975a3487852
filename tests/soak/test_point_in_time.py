"""A hundred million samples joined to ten million events as of each one's time, in at most 4 GB.

`PENSTOCK_SOAK_SAMPLES` sets the samples (100,000,000; a tenth as many events), `PENSTOCK_SOAK_DIR` where all lies.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

RSS_LIMIT_MB = 4000
BLOCK = 1_000_000
#: Events of each user, one every `users` seconds: event i is of user i % users, at second i.
EACH = 10
PANE_S, PANES = 3600, 24 * 7
VIEWS = f"""<views xmlns="urn:penstock:views:1" name="soak"><entity name="user" key="user" type="int"/>
<view name="clicks" entity="user"><source type="parquet" path="events/*.parquet" time="s" unit="s"/>
<column name="newest" type="int" from="i"/>
<aggregate name="clicks_7d" function="count" sliding="{PANES}h" every="1h"/>
<aggregate name="price_7d" function="sum" from="price" type="float" decimals="2" sliding="{PANES}h" every="1h"/>
</view></views>"""
JOIN = """
import json, resource, sys, time
from pathlib import Path
import polars as pl
from penstock.features.views import point_in_time, read
folder = Path(sys.argv[1])
views = list(read(folder / "views.xml").views.values())
began = time.monotonic()
samples = pl.scan_parquet(folder / "samples/*.parquet")
point_in_time(samples, views, folder / "known.parquet", time="s", unit="s", scratch=folder)
spent = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": time.monotonic() - began, "cpu_s": spent.ru_utime + spent.ru_stime,
                  "peak_mb": spent.ru_maxrss / 1e3}))
"""


def written(folder: Path, samples: int, events: int) -> None:
    """Events in the order of their times; samples of any user at any time, one in eleven of nobody known."""
    users, chance = events // EACH, np.random.default_rng(0)
    for name, rows in (("events", events), ("samples", samples)):
        (folder / name).mkdir()
        for part, first in enumerate(range(0, rows, BLOCK)):
            i = np.arange(first, min(first + BLOCK, rows))
            if name == "events":
                columns = {"user": i % users, "s": i, "i": i, "price": (i % 100) / 4}
            else:
                columns = {
                    "user": chance.integers(0, users * 11 // 10, len(i)),
                    "s": chance.integers(0, events, len(i)),
                }
            pq.write_table(pa.table(columns), folder / name / f"{part:05}.parquet")


def wrong(folder: Path, events: int) -> int:
    """How many rows do not tell what the way the events were made says."""
    users, found = events // EACH, 0
    known = pq.ParquetFile(folder / "known.parquet").iter_batches(BLOCK)
    rest = pa.table({"newest": pa.array([], pa.int64()), "clicks_7d": pa.array([], pa.int64()),
                     "price_7d": pa.array([], pa.float64())})  # fmt: skip
    for path in sorted((folder / "samples").iterdir()):
        asked = pq.read_table(path)
        user, second = asked["user"].to_numpy(), asked["s"].to_numpy()
        while rest.num_rows < len(user):
            rest = pa.concat_tables([rest, pa.Table.from_batches([next(known)])])
        told, rest = rest.slice(0, len(user)), rest.slice(len(user))

        def upto(second: np.ndarray, user: np.ndarray = user) -> np.ndarray:
            """A user's events up to a second."""
            return np.where(user < users, np.clip((second - user) // users + 1, 0, EACH), 0)

        count = upto(second)
        before = upto((second // PANE_S - PANES + 1) * PANE_S - 1)
        prices = sum(
            np.where((before <= k) & (k < count), (user + k * users) % 100 * 25, 0) for k in range(EACH)
        )  # fmt: skip
        newest = np.where(count > 0, user + (count - 1) * users, -1)
        found += int((told["newest"].fill_null(-1).to_numpy() != newest).sum())
        found += int((told["clicks_7d"].to_numpy() != count - before).sum())
        found += int((told["price_7d"].to_numpy() != np.asarray(prices) / 100).sum())
    assert rest.num_rows == 0 and next(known, None) is None
    return found


def joined(folder: Path, samples: int) -> dict[str, float]:
    events = samples // 10
    written(folder, samples, events)
    (folder / "views.xml").write_text(VIEWS)
    done = subprocess.run([sys.executable, "-c", JOIN, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert wrong(folder, events) == 0
    assert pl.scan_parquet(folder / "known.parquet").select(pl.col("clicks_7d").sum()).collect().item() > 0
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_many_samples_are_joined_as_the_events_were_made(tmp_path: Path) -> None:
    joined(tmp_path, 200_000)


@pytest.mark.soak
def test_more_samples_than_memory_holds_are_joined_in_little(tmp_path: Path) -> None:
    folder = Path(os.environ.get("PENSTOCK_SOAK_DIR", tmp_path)) / "point-in-time"
    folder.mkdir(parents=True)
    samples = int(os.environ.get("PENSTOCK_SOAK_SAMPLES", "100000000"))
    try:
        found = joined(folder, samples)
        print(f"soak: {samples:,} samples, {samples // 10:,} events: {found}")
        assert found["peak_mb"] <= RSS_LIMIT_MB
    finally:
        shutil.rmtree(folder)
