"""Simulated days through the training and publishing side of the loop: new people and new items every day.

Samples say when they happened in the simulator's time, of which a day passes in seconds; that is the clock by which
rows leave. The trainer publishes, a host follows, and each day's end finds what the day has cost.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from penstock.demo.processes import at_home
from penstock.demo.service import SERVING_LINE
from penstock.demo.visitors import Day
from penstock.serving.client import Client
from penstock.streams import open_topic
from penstock.training.bundle import load, one_batch
from penstock.training.live import settings
from penstock.training.live.learners import learner

from .closed import Process, children, free_port
from .watching import MB, Freshness, metrics, own_memory_mb, size_mb

Floats = npt.NDArray[np.float64]
COLUMNS = ("user", "item", "category", "position", "device", "age", "tier")
FEATURES = "\n".join(
    [
        '<features xmlns="urn:penstock:features:1" name="days" seed="3">',
        *(f'  <slot name="{name}" id="{at}" fn="hash" from="{name}"/>' for at, name in enumerate(COLUMNS, 1)),
        "</features>\n",
    ]
)
FLOW = """<flow xmlns="urn:penstock:flow:1" name="days">
  <node name="model" engine="local">
    <input name="rows" type="parquet" path="rows.parquet"/>
    <process name="mapped" type="features" from="rows" map="features.xml" keep="label time"/>
    <process name="m" type="deep" from="mapped" label="label" model="wide_deep" dim="8" hidden="16" batch="{batch}"
             embedding_rate="0.05" rate="0.002" deterministic="true" {more}/>
    <output name="out" type="model" from="m" path="deep"/>
  </node>
</flow>
"""
BATCH = 256
#: An item is taken out after so many days, and its place has another one.
ITEM_DAYS, ITEMS = 20, 4_000
#: 2026-01-01.
BEGIN_S = 1_767_225_600
SLICE_S = 0.05
#: Of a chain's and of the samples' topic: small, for the few bytes of a simulated day.
SEGMENT = "1MiB"
#: Room for what changes in some days: the host has to make it again and again.
OVERLAY_MB = 6
BASES_KEPT = 2
#: A busy machine may leave these processes waiting.
PATIENCE_S = 600.0


def frame(day: Day) -> pl.DataFrame:
    """A day's impressions. Items have the keys of those that have their places on that day."""
    item = day.columns["item"]
    edition = (day.number + item % ITEM_DAYS) // ITEM_DAYS
    columns = {**day.columns, "item": item + ITEMS * edition}
    times = BEGIN_S + day.time_s
    return pl.DataFrame(
        {**{name: columns[name] for name in COLUMNS}, "label": day.clicked.astype(np.int64), "time": times}
    )


def records(rows: pl.DataFrame) -> tuple[list[bytes], list[int]]:
    """Rows as records of the sample topic, and their times."""
    times = (rows["time"] * 1000).to_list()
    own = rows.select(
        *COLUMNS, pl.col("label").alias("_label"), (pl.col("time") * 1000).alias("_time_ms"),
        pl.lit("impression").alias("_kind"),
    )  # fmt: skip
    text = io.BytesIO()
    own.write_ndjson(text)
    return text.getvalue().splitlines(), times


@dataclass(frozen=True)
class Figures:
    """What a day's end finds. `laid`, `gone`: rows and tombstones published in the day; `rebased`: times that the host
    took a newer base so far. Sizes are MB, those of memory the most of the day; seconds are of freshness."""

    day: int
    rows: int
    auc: float
    trainer_mb: float
    host_mb: float = 0.0
    laid: int = 0
    gone: int = 0
    rebased: int = 0
    cuts_mb: float = 0.0
    registry_mb: float = 0.0
    chain_mb: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0
    worst_s: float = 0.0


class Days:
    """A trainer in a folder, from a model of the first day on; with `ttl_days` 0 no row leaves. `followed`: it
    publishes, and a host follows, which is asked for the first day's first row over and over."""

    def __init__(self, folder: Path, first: Day, ttl_days: int, *, followed: bool, base_s: float) -> None:
        self.folder, self.first, self.ttl_days = folder, first, ttl_days
        self.followed, self.base_s = followed, base_s
        self.samples = f"log:{folder}/samples?segment={SEGMENT}&retention_bytes=32MiB"
        self.chain = f"log:{folder}/chain?segment={SEGMENT}"
        self.port, self.watch_port = free_port(), free_port()
        self.host = Process("host", folder, "serve", f"{folder}/serving.toml")
        self.trainer = Process("trainer", folder, "online", "run", f"{folder}/loop.toml", "--json")
        self.fresh: Freshness | None = None
        self._running = ExitStack()

    def __enter__(self) -> Self:
        """Train the first model and start all."""
        with ExitStack() as stack:
            stack.enter_context(at_home(self.folder))
            self.folder.mkdir(parents=True)
            self._train_first_model()
            self._write_files()
            for address in (self.samples, self.chain):
                open_topic(address).close()
            stack.callback(self._kill)
            self.trainer.start()
            self.trainer.wait_for("metrics on http")
            if self.followed:
                self.host.start()
                self.host.wait_for(SERVING_LINE)
                self.fresh = Freshness(self.chain, self.port, frame(self.first).head(1).select(COLUMNS))
                stack.callback(self.fresh.stop)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _kill(self) -> None:
        for part in (self.host, self.trainer):
            if part.alive():
                part.kill()

    def _train_first_model(self) -> None:
        more = f'time="time" ttl="{self.ttl_days}d"' if self.ttl_days else ""
        (self.folder / "features.xml").write_text(FEATURES)
        (self.folder / "flow.xml").write_text(FLOW.format(batch=BATCH, more=more))
        frame(self.first).write_parquet(self.folder / "rows.parquet")
        run("flow", "run", f"{self.folder}/flow.xml")

    def _write_files(self) -> None:
        published = f'[publish]\ntopic = "{self.chain}"\n[bases]\nevery_s = {self.base_s}\nkeep = {BASES_KEPT}\n'
        (self.folder / "loop.toml").write_text(
            f'[model]\nname = "m"\nstart = "deep"\n[samples]\ntopic = "{self.samples}"\nquarantine = "bad.jsonl"\n'
            f"[train]\nbatch = {BATCH}\nthreads = 1\ndeterministic = true\n"
            f'[checkpoints]\nfolder = "cuts"\nevery_s = 2\n{published if self.followed else ""}'
            f"[gates]\nhalf_life = {2 * len(self.first.clicked)}\n"
            f'[watch]\nlisten = "127.0.0.1:{self.watch_port}"\n'
        )
        (self.folder / "serving.toml").write_text(
            f'[listen]\nhttp = "127.0.0.1:{self.port}"\n[host]\ndrain_s = 0\n[models.m.versions]\n1 = "deep"\n'
            f'[models.m.live]\ntopic = "{self.chain}"\noverlay_mb = {OVERLAY_MB}\n'
        )

    def stop(self, rows: pl.DataFrame) -> tuple[Floats, Floats]:
        """End the trainer; how rows are scored by what it has learnt, and by the host when that has come to it."""
        done = json.loads(self.trainer.stop())
        assert self.fresh is not None
        self.fresh.wait_for_head((done["generation"], done["published"]["sequence"]), PATIENCE_S)
        asked = rows.select(COLUMNS)
        with Client(f"http://127.0.0.1:{self.port}") as client:
            served = client.infer("m", asked).outputs["score"]
        return self._trained(asked), served.reshape(-1)

    def _trained(self, rows: pl.DataFrame) -> Floats:
        """By the newest cut."""
        bundle, scratch = load(self.folder / "deep"), self.folder / "scratch"
        made = learner(
            bundle, self.folder / "deep", settings.read(self.folder / "loop.toml").document.train, anew=False
        )
        scratch.mkdir()
        try:
            assert made.resume(sorted((self.folder / "cuts").glob("gen-*"))[-1]) is not None
            return replace(bundle, scorer=made.scorer(scratch)).score(one_batch(rows))
        finally:
            made.close()

    def clear(self) -> None:
        """What an operator has run every few nights: versions that nobody needs leave the registry."""
        run("models", "gc", "--yes", "--keep", str(BASES_KEPT), "--grace-days", "0")

    # --- a day ---

    def live(self, day: Day, seconds: float) -> Figures:
        """Let a day pass in so many seconds, and until all of it is learnt and served; what it has cost."""
        values, times = records(frame(day))
        before = (self.fresh.rows, self.fresh.gone) if self.fresh else (0, 0)
        appended: list[tuple[int, float]] = []
        memory = np.zeros(2)
        slices = max(1, round(seconds / SLICE_S))
        bounds = np.linspace(0, len(values), slices + 1).astype(int).tolist()
        at = time.monotonic()
        with open_topic(self.samples) as topic:
            for begin, end in pairwise(bounds):
                at += seconds / slices
                time.sleep(max(0.0, at - time.monotonic()))
                when = time.time()
                done = topic.append(values[begin:end], times_ms=times[begin:end])
                appended.append((done[0], when))
                memory = np.maximum(memory, self._memory())
        self._wait_for(appended[-1][0])
        own, (trainer_mb, host_mb) = metrics(self.watch_port), np.maximum(memory, self._memory()).tolist()
        found = Figures(day.number, int(own["penstock_online_rows"]), own["penstock_online_auc"], trainer_mb)
        if self.fresh is None:
            return found
        waited = self.fresh.of(appended)
        with open_topic(self.chain) as chain:
            chain_mb = chain.size(0)[1] / MB
        return replace(
            found, host_mb=host_mb, laid=self.fresh.rows - before[0], gone=self.fresh.gone - before[1],
            rebased=int(metrics(self.port)["penstock_chain_rebased_total"]), chain_mb=chain_mb,
            cuts_mb=size_mb(self.folder / "cuts"),
            registry_mb=size_mb(self.folder / "registry", self.folder / "models"),
            p50_s=float(np.median(waited)), p95_s=float(np.percentile(waited, 95)), worst_s=float(waited.max()),
        )  # fmt: skip

    def _memory(self) -> Floats:
        host = own_memory_mb(children(self.host.pid)[0]) if self.followed else 0.0
        return np.array([own_memory_mb(self.trainer.pid), host])

    def _wait_for(self, offset: int) -> None:
        if self.fresh is not None:
            self.fresh.wait_for(offset, PATIENCE_S)
            return
        ends = time.monotonic() + PATIENCE_S
        while metrics(self.watch_port)["penstock_online_samples_total"] < offset:
            assert self.trainer.alive() and time.monotonic() < ends, self.trainer.said()
            time.sleep(0.05)


def run(*arguments: str) -> None:
    """`penstock ARGUMENTS`, to its end."""
    command = [sys.executable, "-m", "penstock.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
