"""`penstock online run` as a process: killed, stopped, fenced off."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from penstock.streams import open_topic

from ..webhooks import Webhook

FEATURES = """<features xmlns="urn:penstock:features:1" name="live" seed="3">
  <slot name="user" id="1" fn="hash" from="user"/>
</features>
"""
FLOW = """<flow xmlns="urn:penstock:flow:1" name="live">
  <node name="model" engine="local">
    <input name="rows" type="parquet" path="rows.parquet"/>
    <process name="mapped" type="features" from="rows" map="features.xml" keep="label"/>
    <process name="m" type="lr" from="mapped" label="label" optimizer="sgd" alpha="1"/>
    <output name="lr" type="model" from="m" path="lr"/>
  </node>
</flow>
"""
SAMPLES, USERS = 6000, 40


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a topic of samples with keys of two partitions."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "features.xml").write_text(FEATURES)
    (folder / "flow.xml").write_text(FLOW)
    pl.DataFrame({"user": ["a", "b"] * 20, "label": [0, 1] * 20}).write_parquet(folder / "rows.parquet")
    done = penstock(folder, "flow", "run", "flow.xml").communicate(timeout=240)
    assert (folder / "lr").is_dir(), done
    draws = random.Random(7)
    with open_topic(f"log:{folder}/samples?partitions=2") as topic:
        for first in range(0, SAMPLES, 500):
            values = [sample(draws, at) for at in range(first, first + 500)]
            keys = [f"r{at}/0".encode() for at in range(first, first + 500)]
            topic.append(values, keys=keys, times_ms=range(1_000_000 + first, 1_000_500 + first))
        for partition in (0, 1):
            topic.append([b'{"_tick_ms": 2000000}'], keys=[b""], times_ms=[2_000_000], partition=partition)
    return folder


def sample(draws: random.Random, at: int) -> bytes:
    label = int(draws.random() < 0.3)
    told = {"user": f"u{draws.randrange(USERS)}", "_id": f"r{at}/0", "_kind": "impression", "_label": label}
    return json.dumps({**told, "_time_ms": 1_000_000 + at, "_emit_ms": 1_000_000 + at, "_weight": 1.0}).encode()


def settings(place: Path, name: str, more: str = "") -> Path:
    path = place / f"{name}.toml"
    path.write_text(
        f'[model]\nname = "{name}"\nstart = "lr"\nanew = true\n[samples]\ntopic = "log:samples"\n'
        f"[train]\nbatch = 50\nthreads = 1\ndeterministic = true\n"
        f'[checkpoints]\nfolder = "{name}-cuts"\nevery_s = 0.05\n[watch]\ntell_s = 0.2\n{more}'
    )
    return path


def penstock(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PENSTOCK_HOME": str(folder / "home"), "PENSTOCK_REGISTRY": str(folder / "registry")}
    command = [sys.executable, "-m", "penstock.cli", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run(path: Path, *more: str) -> subprocess.Popen[str]:
    return penstock(path.parent, "online", "run", path.name, "--json", *more)


def newest_cut(place: Path, name: str) -> str:
    return max((str(cut) for cut in place.glob(f"{name}-cuts/gen-*/*.cut")), default="")


@contextmanager
def until(process: subprocess.Popen[str], seconds: float = 60) -> Iterator[float]:
    """A deadline, after which the process is killed."""
    try:
        yield time.monotonic() + seconds
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[dict[str, object], str]:
    """Stop a run and give its JSON and its log."""
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said[-3000:]
    return json.loads(out), said


def learnt(place: Path, name: str) -> tuple[bytes, dict[str, int]]:
    """The weights in the newest cut, and what it had consumed."""
    import numpy as np

    from penstock.training.bundle import load
    from penstock.training.live.learners import OnlineLearner

    learner = OnlineLearner(load(place / "lr"), batch=50, threads=1, anew=True)
    sections = learner.resume(sorted(place.glob(f"{name}-cuts/gen-*"))[-1])
    assert sections is not None
    fields, keys, values = (np.asarray(column) for column in learner.trainer.rows())
    order = np.lexsort((keys, fields))
    table = values.reshape(len(keys), -1)[order]
    return table.tobytes(), json.loads(sections["loop"])["places"]["samples"]


def finished(place: Path, name: str, kills: int) -> int:
    """Run to the end of the topic, killing it `kills` times; returns how many hit a run with cuts behind it."""
    draws, hit = random.Random(kills), 0
    path = settings(place, name)
    for _ in range(kills):
        before = newest_cut(place, name)
        process = run(path, "--take-over")
        with until(process) as deadline:
            while process.poll() is None and newest_cut(place, name) <= before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(draws.random() * 0.1)
            process.kill()
            process.communicate()
        hit += newest_cut(place, name) > ""
    process = run(path, "--take-over")
    with until(process) as deadline:
        while True:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.1)
            told = sorted(place.glob(f"{name}-cuts/gen-*/place.json"))
            if told and json.loads(told[-1].read_text())["samples"] == SAMPLES:
                break
        ended(process)
    return hit


def test_killed_at_any_instant_every_sample_has_acted_once(place: Path) -> None:
    """SGD's weights are a sum of gradients at the weights before: a sample lost, doubled or moved shows in them."""
    finished(place, "straight", 0)
    hit = finished(place, "killed", 4)
    assert hit >= 2, "kills must hit runs in their middle"
    (one, consumed), (other, consumed_too) = learnt(place, "straight"), learnt(place, "killed")
    assert consumed["counts"] == {"samples": SAMPLES, "ticks": 0, "quarantined": 0, "skipped": 0}
    assert consumed_too == consumed and one == other


def test_a_stopped_trainer_that_was_taken_over_writes_nothing_more_and_says_why(place: Path, webhook: Webhook) -> None:
    webhook.metrics = f"127.0.0.1:{free_port()}"
    path = settings(place, "fenced", f"webhook = '{webhook.address}'\nlisten = '{webhook.metrics}'\n")
    old = run(path)
    with until(old) as deadline:
        while not newest_cut(place, "fenced") and time.monotonic() < deadline:
            time.sleep(0.01)
        path = settings(place, "fenced")  # the others would find its port taken
        second = run(path)
        said = second.communicate(timeout=60)[0]
        assert second.returncode == 2 and "LIVE010" in said and "--take-over" in said
        old.send_signal(signal.SIGSTOP)
        new = run(path, "--take-over")
        with until(new):
            while "gen-000002" not in newest_cut(place, "fenced") and time.monotonic() < deadline:
                time.sleep(0.01)
            written = {cut: cut.stat().st_mtime_ns for cut in place.glob("fenced-cuts/gen-000001/*")}
            time.sleep(2.6)  # half a lease: who comes back asks first
            old.send_signal(signal.SIGCONT)
            out, told = old.communicate(timeout=60)
            assert old.returncode == 1 and "LIVE011" in out and "generation 2" in out, (out, told)
            (alert,) = webhook.of("fenced")
            assert "LIVE011" in alert["message"] and "ALERT fenced: LIVE011" in told
            assert 'penstock_online_alerts_total{model="fenced",of="fenced"} 1\n' in alert["metrics"]
            assert {cut: cut.stat().st_mtime_ns for cut in place.glob("fenced-cuts/gen-000001/*")} == written
            done, _ = ended(new)
            assert done["generation"] == 2
