"""`penstock online run` as a process: begun somewhere, killed, stopped, fenced off."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from penstock import native
from penstock.registry.chain import read, records
from penstock.serving.client import Client
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
#: 2023-11-14T22:13:20Z; the samples are a millisecond apart.
BEGIN_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a topic of samples with keys of two partitions."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "features.xml").write_text(FEATURES)
    (folder / "flow.xml").write_text(FLOW)
    pl.DataFrame({"user": ["a", "b"] * 20, "label": [0, 1] * 20}).write_parquet(folder / "rows.parquet")
    done = penstock(folder, "flow", "run", "flow.xml").communicate(timeout=240)
    assert (folder / "lr").is_dir(), done
    append(f"log:{folder}/samples?partitions=2", 0, SAMPLES)
    return folder


def append(address: str, first: int, count: int) -> None:
    """Samples, and the word of each partition that it has no earlier ones."""
    draws = random.Random(first)
    with open_topic(address) as topic:
        for begin in range(first, first + count, 500):
            part = range(begin, min(begin + 500, first + count))
            keys = [f"r{at}/0".encode() for at in part]
            topic.append([sample(draws, at) for at in part], keys=keys, times_ms=[BEGIN_MS + at for at in part])
        after_ms = BEGIN_MS + first + count
        tick = json.dumps({"_tick_ms": after_ms}).encode()
        for partition in range(topic.partitions):
            topic.append([tick], keys=[b""], times_ms=[after_ms], partition=partition)


def sample(draws: random.Random, at: int) -> bytes:
    label = int(draws.random() < 0.3)
    told = {"user": f"u{draws.randrange(USERS)}", "_id": f"r{at}/0", "_kind": "impression", "_label": label}
    return json.dumps({**told, "_time_ms": BEGIN_MS + at, "_emit_ms": BEGIN_MS + at, "_weight": 1.0}).encode()


def settings(place: Path, name: str, more: str = "", samples: str = "samples") -> Path:
    path = place / f"{name}.toml"
    path.write_text(
        f'[model]\nname = "{name}"\nstart = "lr"\nanew = true\n[samples]\ntopic = "log:{samples}"\n'
        f"[train]\nbatch = 20\nthreads = 1\ndeterministic = true\n"
        f'[checkpoints]\nfolder = "{name}-cuts"\nevery_s = 0.02\n[watch]\ntell_s = 0.2\n{more}'
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


def consumed(place: Path, name: str) -> int:
    """Samples that the newest whole cut has."""
    told = sorted(place.glob(f"{name}-cuts/gen-*/place.json"))
    return int(json.loads(told[-1].read_text())["samples"]) if told else 0


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


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Stop a run and give its JSON."""
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said[-3000:]
    done: dict[str, Any] = json.loads(out)
    return done


def learnt(place: Path, name: str) -> tuple[bytes, dict[str, int]]:
    """The weights in the newest cut, and what it had consumed."""
    import numpy as np

    from penstock.training.bundle import load
    from penstock.training.live.learners import OnlineLearner

    learner = OnlineLearner(load(place / "lr"), batch=20, threads=1, anew=True)
    sections = learner.resume(sorted(place.glob(f"{name}-cuts/gen-*"))[-1])
    assert sections is not None
    fields, keys, values = (np.asarray(column) for column in learner.trainer.rows())
    order = np.lexsort((keys, fields))
    table = values.reshape(len(keys), -1)[order]
    return table.tobytes(), json.loads(sections["loop"])["places"]["samples"]


def wait(process: subprocess.Popen[str], holds: Callable[[], bool], deadline: float, what: str) -> None:
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def finished(place: Path, name: str, kills: int) -> int:
    """Run to the end of the topic, killed somewhere in each of `kills` parts of the way; returns how many kills hit a
    run that had learnt something and had samples to go."""
    draws, hit = random.Random(kills), 0
    path = settings(place, name)
    for part in range(kills):
        before = consumed(place, name)
        upto = max(before, int(SAMPLES * (part + draws.random()) / (kills + 1)))
        process = run(path, "--take-over")
        with until(process) as deadline:
            wait(process, lambda: consumed(place, name) > upto, deadline, "it does not learn")  # noqa: B023
            time.sleep(draws.random() * 0.03)
            process.kill()
            process.communicate()
        hit += before < consumed(place, name) < SAMPLES
    process = run(path, "--take-over")
    with until(process) as deadline:
        wait(process, lambda: consumed(place, name) == SAMPLES, deadline, "it does not come to the end")
        ended(process)
    return hit


def test_killed_at_any_instant_every_sample_has_acted_once(place: Path) -> None:
    """SGD's weights are a sum of gradients at the weights before: a sample lost, doubled or moved shows in them."""
    finished(place, "straight", 0)
    hit = finished(place, "killed", 3)
    assert hit >= 2, "kills must hit runs in their middle"
    (one, consumed), (other, consumed_too) = learnt(place, "straight"), learnt(place, "killed")
    assert consumed["counts"] == {"samples": SAMPLES, "ticks": 0, "quarantined": 0, "skipped": 0}
    assert consumed_too == consumed and one == other


@pytest.mark.parametrize(("begin", "partitions", "left"), [("2023-11-14T22:13:25.500Z", 2, 500), ("5800", 1, 200)])
def test_without_checkpoints_it_begins_at_a_time_or_at_an_offset(
    place: Path, begin: str, partitions: int, left: int
) -> None:
    name = f"from-{left}"
    topic = f"log:{place}/{name}-samples"
    append(f"{topic}?partitions={partitions}", 0, SAMPLES)
    process = run(settings(place, name, samples=f"{name}-samples"), "--from", begin)
    with until(process) as deadline:
        wait(process, lambda: consumed(place, name) >= left, deadline, "it does not learn")
        done = ended(process)
    assert (done["samples"], done["gaps"]) == (left, 0)
    with open_topic(topic) as opened:
        behind = {opened.end(int(partition)) - offset for partition, offset in done["positions"].items()}
    assert behind <= {0, 1}, "but for a tick all was learnt from"


@contextmanager
def no_appends(partition: Path) -> Iterator[None]:
    """Whoever appends to a partition of a log waits until this ends."""
    with (partition / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def serving(place: Path, name: str) -> Iterator[Client]:
    """A host of the model, which follows the loop's chain."""
    path = place / f"{name}-serving.toml"
    path.write_text(
        f'[models.{name}.versions]\n1 = "lr"\n[models.{name}.live]\ntopic = "log:{name}-chain"\n[host]\ndrain_s = 0\n'
    )
    process = penstock(place, "serve", path.name)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving http="), process.communicate()
        with Client("http://" + line.split()[1].removeprefix("http=")) as client:
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=60)


def metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"penstock_online_{name}{{")).split()[-1])


def test_a_trainer_that_was_stopped_in_a_delta_and_taken_over_changes_nothing_more_and_says_why(
    place: Path, webhook: Webhook
) -> None:
    """The delta that it was appending comes behind those of the next generation, and counts for nobody."""
    webhook.metrics = f"127.0.0.1:{free_port()}"
    publish = "[publish]\ntopic = 'log:fenced-chain'\nevery_ms = 50\n"
    watched = f"webhook = '{webhook.address}'\nlisten = '{webhook.metrics}'\n"
    samples, chain = f"log:{place}/fenced-samples", f"log:{place}/fenced-chain"
    append(samples, 0, 500)
    old = run(settings(place, "fenced", watched + publish, "fenced-samples"))
    with until(old) as deadline:
        wait(old, lambda: consumed(place, "fenced") == 500, deadline, "it does not learn")
        path = settings(place, "fenced", publish, "fenced-samples")  # the others would find its port taken
        second = run(path)
        said = second.communicate(timeout=60)[0]
        assert second.returncode == 2 and "LIVE010" in said and "--take-over" in said
        with no_appends(place / "fenced-chain" / "0"):
            append(samples, 500, 500)
            wait(old, lambda: metric(webhook.metrics, "samples_total") > 500, deadline, "it does not go on")
            time.sleep(0.5)
            assert metric(webhook.metrics, "checkpoint_age_seconds") > 0.4, "nothing holds it up"
            old.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
        new = run(path, "--take-over")
        with until(new), serving(place, "fenced") as client:
            wait(new, lambda: consumed(place, "fenced") == 1000, deadline, "the new one does not learn")
            assert "gen-000002" in newest_cut(place, "fenced")
            frame = pl.DataFrame({"user": [f"u{user}" for user in range(USERS)]})

            def served() -> tuple[tuple[int, int] | None, bytes]:
                reply = client.infer("fenced", frame)
                return reply.position, reply.outputs["score"].tobytes()

            def heads() -> list[tuple[int, int]]:
                with open_topic(chain) as topic:
                    return [(delta.generation, delta.to) for delta in read(topic, None, model="fenced")]

            wait(new, lambda: served()[0] == heads()[-1], deadline, "the host does not follow")
            before, published = served(), heads()
            assert before[0] is not None and before[0][0] == 2
            written = {cut: cut.stat().st_mtime_ns for cut in place.glob("fenced-cuts/gen-000001/*")}
            time.sleep(max(0.0, stopped + 2.6 - time.monotonic()))  # half a lease: who comes back asks first
            old.send_signal(signal.SIGCONT)
            out, told = old.communicate(timeout=60)
            assert old.returncode == 1 and "LIVE011" in out and "generation 2" in out, (out, told)
            (alert,) = webhook.of("fenced")
            assert "LIVE011" in alert["message"] and "ALERT fenced: LIVE011" in told
            assert 'penstock_online_alerts_total{model="fenced",of="fenced"} 1\n' in alert["metrics"]
            assert {cut: cut.stat().st_mtime_ns for cut in place.glob("fenced-cuts/gen-000001/*")} == written
            with open_topic(chain) as topic:
                last = native.ChainRecord(list(records(topic, 0, 0, None))[-1].value)
            assert (last.kind, last.generation) == ("commit", 1), "it published nothing: nothing was proved"
            time.sleep(0.2)  # of which the host reads
            assert served() == before and heads() == published
            append(samples, 1000, 100)
            wait(new, lambda: consumed(place, "fenced") == 1100, deadline, "the new one does not learn")
            wait(new, lambda: served()[0] == heads()[-1] > published[-1], deadline, "the host does not go on")
            assert {generation for generation, _ in heads()[len(published) :]} == {2}
            assert ended(new)["generation"] == 2
