"""What `lr` and `fm` publish makes a host score as the trainer does: with evicted keys, after a kill, after damage."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from penstock import native
from penstock.registry.bundles import digest_of_folder, read_manifest
from penstock.registry.chain import ChainHead, Publisher, Standing, records
from penstock.registry.chain_records import Assembler, Begin, ChainError, Whole
from penstock.streams import Unreachable, open_topic
from penstock.training.bundle import Bundle, load
from penstock.training.live import settings
from penstock.training.live.run import Loop

from .conftest import append, rows
from .conftest import records as samples_of
from .test_run import run_until

SettingsFile = Callable[..., Path]
PUBLISH = "[train]\nbatch = 100\n[publish]\ntopic = 'log:chain'\nevery_ms = 50\n"


def strangers(count: int, seed: int, first: int = 0) -> list[dict[str, Any]]:
    """Samples whose users and items are others every 250 rows: those of before never come again."""
    frame = rows(count, seed)
    era = (pl.int_range(pl.len()) + first) // 250
    named = frame.with_columns(pl.col("user", "item") + "-" + era.cast(pl.String))
    return samples_of(named, first=first)


class Follower:
    """A served model that takes in what a topic holds, by the rules of hosts."""

    def __init__(self, folder: Path, topic: str) -> None:
        self.model = native.ServedModel(str(folder), overlay_bytes=4 << 20)
        following = self.model.following()
        assert following is not None
        self.following, self.topic = following, topic
        plan = str(read_manifest(folder)["plan"])
        self.standing = Standing(ChainHead("ctr", 0, 0), plan=plan, base=digest_of_folder(folder))
        self.offset = self.gone = self.samples = 0

    def catch_up(self) -> tuple[int, int]:
        assembler = Assembler("ctr")
        with open_topic(self.topic) as topic:
            for record in records(topic, 0, self.offset, None):
                found = assembler.take(record)
                if isinstance(found, Begin):
                    self.standing.begins(found)
                elif isinstance(found, Whole) and self.standing.judge(found):
                    parts = [part.record for part in found.records]
                    self.following.apply(parts, found.generation, found.to)
                    self.standing.applied(found)
                    self.gone += sum(part.gone for part in found.records)
                    self.samples = int(found.more["positions"]["samples"]["0"])
                self.offset = record.offset + 1
        return self.standing.head[1:]

    def scores(self, frame: pl.DataFrame) -> np.ndarray:
        tensors: list[Any] = [(name, [len(frame)], frame[name].to_arrow()) for name in ("user", "item")]
        tensors = [(name, shape, array.cast(pa.string())) for name, shape, array in tensors]
        tensors.append(("price", [len(frame)], frame["price"].to_arrow()))
        ((_, _, found),) = self.model.predict(tensors)
        return np.asarray(pa.array(found), np.float64)


def learnt(loop: Loop, start: Path, scratch: Path) -> Bundle:
    """What the trainer has learnt, with what it began from."""
    return replace(load(start), scorer=loop.learner.scorer(scratch))


def published(loop: Loop) -> int:
    return int(loop.done["published"]["sequence"])  # type: ignore[attr-defined]


def probe() -> pl.DataFrame:
    """Rows of every era, and of keys that nobody has seen."""
    found = [rows(200, 9)]
    for sample in strangers(2500, 1)[::7] + strangers(1500, 2, 1000)[::7]:
        found.append(pl.DataFrame({name: [sample[name]] for name in ("user", "item", "price")} | {"label": [0]}))
    return pl.concat(found, how="vertical_relaxed")


@pytest.mark.parametrize("kind", ["lr-forgetful", "fm-forgetful"])
def test_a_host_scores_as_the_trainer_also_where_keys_were_forgotten(
    kind: str, settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    host = Follower(models(kind), f"log:{tmp_path}/chain")
    append(f"log:{tmp_path}/samples", strangers(1500, 1))
    loop = run_until(settings_file(kind, PUBLISH), 1500)
    before = host.scores(probe())
    head = host.catch_up()
    assert head == (1, published(loop)) and head[1] > 1
    found = host.scores(probe())
    np.testing.assert_allclose(found, learnt(loop, models(kind), tmp_path).score(probe()), rtol=0, atol=1e-6)
    assert np.abs(found - before).max() > 0.1 and host.model.position == head
    assert host.gone > 50, "no key was forgotten, so that nothing was proved"


def test_a_trainer_that_was_killed_takes_back_what_its_hosts_had_got_since_its_cut(
    settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    kind = "lr-forgetful"
    host = Follower(models(kind), f"log:{tmp_path}/chain")
    path = settings_file(kind, PUBLISH)
    append(f"log:{tmp_path}/samples", strangers(1000, 1))
    run_until(path, 1000)
    cut = host.catch_up()
    append(f"log:{tmp_path}/samples", strangers(1500, 2, 1000))
    command = [sys.executable, "-m", "penstock.cli", "online", "run", str(path)]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        deadline = time.monotonic() + 120
        # All samples since the cut are published, and no other cut comes for a minute.
        while host.catch_up() and host.samples < 2500 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert (1, 1) <= cut < (2, 2) <= host.catch_up() and host.samples == 2500, (tmp_path / "log").read_text()
    ahead = host.scores(probe())
    recovered = Loop(settings.read(path), take_over=True)
    recovered.stop()  # it recovers, and learns a batch at most
    recovered.run()
    assert recovered.state.samples <= 1100
    assert host.catch_up()[0] == 3
    found = host.scores(probe())
    np.testing.assert_allclose(found, learnt(recovered, models(kind), tmp_path).score(probe()), rtol=0, atol=1e-6)
    assert np.abs(found - ahead).max() > 0.01, "nothing had to be taken back"
    last = run_until(path, 2500)
    assert host.catch_up()[0] == 4
    np.testing.assert_allclose(
        host.scores(probe()), learnt(last, models(kind), tmp_path).score(probe()), rtol=0, atol=1e-6
    )


def test_a_damaged_delta_changes_nothing_and_the_next_base_is_gone_on_from(
    settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    kind = "fm-forgetful"
    append(f"log:{tmp_path}/samples", strangers(600, 1))
    loop = run_until(settings_file(kind, PUBLISH), 600)
    host = Follower(models(kind), f"log:{tmp_path}/bad")
    with open_topic(f"log:{tmp_path}/chain") as topic, open_topic(f"log:{tmp_path}/bad") as bad:
        for record in records(topic, 0, 0, None):
            read = native.ChainRecord(record.value)
            torn = read.kind == "rows" and read.from_ == 1
            value = record.value[:-1] + bytes([record.value[-1] ^ 1]) if torn else record.value
            bad.append([value], keys=[record.key])
    before = host.scores(probe())
    with pytest.raises(ChainError) as damaged:
        host.catch_up()
    assert damaged.value.code == "CHAIN001"
    assert host.scores(probe()).tobytes() == before.tobytes() and host.model.position == (0, 0)

    now = learnt(loop, models(kind), tmp_path)
    now.save(tmp_path / "base")
    host.following.stage(tmp_path / "base", 1, published(loop))
    assert host.scores(probe()).tobytes() == before.tobytes(), "it is not shown yet"
    host.following.show()
    np.testing.assert_allclose(host.scores(probe()), now.score(probe()), rtol=0, atol=1e-6)
    assert host.model.position == (1, published(loop))


def test_a_host_that_serves_follows_what_the_loop_learns(
    settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path
) -> None:
    kind = "lr-forgetful"
    append(f"log:{tmp_path}/samples", strangers(1000, 1))
    loop = run_until(settings_file(kind, PUBLISH), 1000)
    (tmp_path / "serving.toml").write_text(
        f'[models.ctr.versions]\n1 = "{models(kind)}"\n[models.ctr.live]\ntopic = "log:{tmp_path}/chain"\n'
        "overlay_mb = 4\n[host]\ndrain_s = 0\n"
    )
    frame = probe()
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(frame)], "data": frame[name].to_list()}
        for name, kind in (("user", "BYTES"), ("item", "BYTES"), ("price", "FP64"))
    ]
    command = [sys.executable, "-m", "penstock.cli", "serve", str(tmp_path / "serving.toml")]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving http="), (tmp_path / "log").read_text()
        url = "http://" + line.split()[1].removeprefix("http=")
        given = urllib.request.Request(f"{url}/v2/models/ctr/infer", json.dumps({"inputs": inputs}).encode())
        with urllib.request.urlopen(given, timeout=10) as reply:
            said = json.loads(reply.read())
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
            metrics = reply.read().decode()
        process.send_signal(signal.SIGTERM)
    about = said["parameters"]
    assert (about["generation"], about["sequence"]) == (1, published(loop)), "it is ready when it has caught up"
    found = np.array(said["outputs"][0]["data"])
    np.testing.assert_allclose(found, learnt(loop, models(kind), tmp_path).score(frame), rtol=0, atol=1e-6)
    assert f'penstock_chain_sequence{{model="ctr",version="1"}} {published(loop)}' in metrics


def test_bases_and_deltas_of_another_shape_are_refused_by_name(models: Callable[[str], Path]) -> None:
    host = Follower(models("lr-forgetful"), "")
    before = host.scores(probe())
    with pytest.raises(ValueError, match="has other fields, numbers or factors"):
        host.following.stage(models("fm-forgetful"), 1, 1)

    def refused(said: str, rank: int, fields: int, weights: list[Any]) -> None:
        factors = (rank, 0.1, 1.0, 0.0, 0.1) if rank else None
        other = native.Online(
            slots=fields, numbers=0, shared=False, positions=False, optimizer="ftrl", rates=(0.1, 1.0, 0.0, 0.0),
            factors=factors, min_count=1, evict_after=0, batch=1, seed=0, threads=1,
        )  # fmt: skip
        other.track_changes("chain")
        width = other.width
        other.put(pa.array([fields - 1], pa.int32()), pa.array([1], pa.uint64()), pa.array([1.0] * width, pa.float32()))
        bodies, _, count, gone, _ = other.pack_changes("chain", [], False, 1 << 20)
        whole = native.delta_records((1, 1, 1, 1), bodies, weights, count, gone, ("ctr", "", "", "{}"), 1 << 20)
        with pytest.raises(ValueError, match=said):
            host.following.apply(whole[:-1], 1, 1)

    refused("the delta is of table 1, the model has 1", 0, 2, [])
    refused("rows of the delta have 3 values, the model's 1", 2, 1, [])
    refused("the model has no weight 'c'", 0, 1, [("c", [1], np.zeros(1, np.float32))])
    refused(
        r"weight 'numbers' is of shape \[1\], in the delta \[2\]", 0, 1, [("numbers", [2], np.zeros(2, np.float32))]
    )
    assert host.scores(probe()).tobytes() == before.tobytes() and host.model.position == (0, 0)


def test_a_chains_topic_that_is_away_ends_nothing_and_loses_nothing(
    settings_file: SettingsFile, models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appends fail, some before and some after the records are there: what was to go out goes out later."""
    host = Follower(models("lr"), f"log:{tmp_path}/chain")
    append(f"log:{tmp_path}/samples", samples_of(rows(1500, 4)))
    real, failed = Publisher._append, []

    def sometimes(self: Publisher, written: Any) -> Any:
        if len(failed) < 2:
            failed.append(len(written))
            if len(failed) % 2:
                real(self, written)
            raise Unreachable("chain", "appending", 1.0, "it is away")
        return real(self, written)

    def begun(self: Publisher, offset: int | None) -> None:
        begin(self, offset)
        monkeypatch.setattr(Publisher, "_append", sometimes)

    begin = Publisher._begin
    monkeypatch.setattr(Publisher, "_begin", begun)
    loop = run_until(settings_file("lr", PUBLISH), 1500)
    assert len(failed) == 2 and host.catch_up() == (1, published(loop))
    np.testing.assert_allclose(
        host.scores(rows(300, 9)), learnt(loop, models("lr"), tmp_path).score(rows(300, 9)), rtol=0, atol=1e-6
    )
