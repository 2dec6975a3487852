"""A CSV far larger than memory passes filter, features and a split by time in at most 2 GB.

`PENSTOCK_SOAK_MB` sets the CSV's size (default 6000); `PENSTOCK_SOAK_DIR` where it is written.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

RSS_LIMIT_MB = 2000
BLOCK = 500_000

FEATURES = """<features xmlns="urn:penstock:features:1" name="soak">
  <slot name="user" id="1" fn="hash" from="user"/>
  <slot name="item" id="2" fn="hash" from="item"/>
  <slot name="cross" id="3" fn="combine" from="user item"/>
  <slot name="pb" id="4" fn="piecewise" from="price" bounds="0, 10, 50, 100, 500"/>
  <dense name="lp" fn="formula" expr="log10(price + 1)"/>
</features>"""

FLOW = """<flow xmlns="urn:penstock:flow:1" name="soak">
  <node name="n">
    <input name="clicks" type="csv" path="clicks.csv"/>
    <process name="kept" type="filter" from="clicks" where="price &gt; 5 and city is not null"/>
    <process name="mapped" type="features" from="kept" map="features.xml" keep="label ts"/>
    <process name="parts" type="split" from="mapped" by="time" column="ts" at="0.8"/>
    <output name="train" type="parquet" from="parts.train" path="out/train.parquet"/>
    <output name="test" type="parquet" from="parts.test" path="out/test.parquet"/>
  </node>
</flow>"""


def written(file: Path, megabytes: int) -> int:
    """A CSV of about that size; gives its rows."""
    rng = np.random.default_rng(1)
    rows = 0
    with file.open("wb") as out:
        while out.tell() < megabytes * 1_000_000:
            block = pl.DataFrame(
                {
                    "ts": 1_700_000_000 + rng.integers(0, 604_800, BLOCK),
                    "label": rng.integers(0, 2, BLOCK),
                    "user": pl.Series(rng.integers(0, 50_000_000, BLOCK)).cast(pl.String) + "-user",
                    "item": pl.Series(rng.zipf(1.2, BLOCK) % 10_000_000).cast(pl.String) + "-item",
                    "price": np.round(rng.gamma(2.0, 60.0, BLOCK), 2),
                    "city": pl.Series(rng.integers(0, 400, BLOCK)).cast(pl.String) + "-city",
                    **{f"n{i}": rng.integers(0, 1_000_000, BLOCK) for i in range(8)},
                }
            )
            block.write_csv(out, include_header=rows == 0)
            rows += BLOCK
    return rows


@pytest.mark.soak
def test_a_csv_larger_than_memory_streams_through(tmp_path: Path) -> None:
    folder = Path(os.environ.get("PENSTOCK_SOAK_DIR", tmp_path)) / "soak"
    folder.mkdir(parents=True)
    try:
        rows = written(folder / "clicks.csv", int(os.environ.get("PENSTOCK_SOAK_MB", "6000")))
        (folder / "features.xml").write_text(FEATURES)
        (folder / "flow.xml").write_text(FLOW)
        started = time.monotonic()
        peak, result = ran(folder)
        seconds = time.monotonic() - started
        kept = result["nodes"][0]["steps"]["train"] + result["nodes"][0]["steps"]["test"]
        size_mb = (folder / "clicks.csv").stat().st_size / 1e6
        print(f"soak: {size_mb:.0f} MB, {rows:,} rows, {seconds:.0f} s, peak {peak:.0f} MB")
        train = pl.scan_parquet(folder / "out/train.parquet").select(pl.len(), pl.col("ts").max()).collect().row(0)
        test = pl.scan_parquet(folder / "out/test.parquet").select(pl.len(), pl.col("ts").min()).collect().row(0)
        assert train[0] + test[0] == kept and 0.79 < train[0] / kept <= 0.8
        assert train[1] < test[1]
        assert peak <= RSS_LIMIT_MB
    finally:
        shutil.rmtree(folder)


def ran(folder: Path) -> tuple[float, dict[str, list[dict[str, dict[str, int]]]]]:
    """Run the flow; the greatest resident set of any of its processes, in MB, and what it says."""
    command = [sys.executable, "-m", "penstock.cli", "flow", "run", str(folder / "flow.xml"), "--json"]
    with (folder / "out.json").open("wb") as out:
        process = subprocess.Popen(command, stdout=out)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, *(_rss_mb(pid) for pid in _family(process.pid)))
            time.sleep(0.05)
    assert process.returncode == 0
    return peak, json.loads((folder / "out.json").read_text())


def _family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _rss_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        return 0.0
