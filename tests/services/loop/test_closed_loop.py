"""The loop, closed: what users do is served back to them, and nothing is lost or doubled, whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from penstock.training.bundle import Bundle, load, one_batch
from penstock.training.live import settings
from penstock.training.live.learners import Learner, learner

from ..streams.brokers import Broker
from ..streams.conftest import kafka, redis  # noqa: F401
from . import closed
from .closed import ITEMS, USERS, Asker, Loop, Pace, Process, Samples, Told, Visitors

Floats = npt.NDArray[np.float64]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    with ExitStack() as stack:

        def start(kind: str, pace: Pace, broker: Broker | None) -> Loop:
            return stack.enter_context(Loop(tmp_path / "loop", kind, broker.address if broker else "", pace))

        yield start


def until(holds: Callable[[], bool], what: str, loop: Loop, patience_s: float = 90) -> None:
    ends = time.monotonic() + patience_s
    while not holds():
        said = "".join(f"\n--- {part.name}\n{part.said()}" for part in loop.parts)
        assert time.monotonic() < ends, f"{what}{said}"
        time.sleep(0.1)


def disturb(loop: Loop, broker: Broker | None, kills: int, every_s: float, seed: int = 3) -> Counter[str]:
    """Kill a part every so often and start it again; how often each was."""
    draws, killed = random.Random(seed), Counter[str]()
    targets = [*loop.parts, *([broker] if broker else [])]
    for turn in range(kills):
        time.sleep(every_s * (0.5 + draws.random()))
        part = targets[turn % len(targets)] if turn < 2 * len(targets) else draws.choice(targets)
        print(f"{time.strftime('%X')} kill {turn + 1} of {kills}: {part.name}", flush=True)
        if isinstance(part, Broker):
            killed[part.name] += 1
            part.kill()
            time.sleep(1.0)
            part.start()
            continue
        assert part.alive(), f"{part.name} ended by itself: {part.said()}"
        if part is loop.trainer:  # one that has not yet begun has nothing to lose
            generation = 1 + killed[part.name]
            own = loop.folder / "cuts" / f"gen-{generation:06d}" / "place.json"
            until(own.exists, f"generation {generation} has no checkpoint", loop)
        killed[part.name] += 1
        if part is loop.host:  # its supervisor starts it anew
            os.kill(closed.children(part.pid)[0], signal.SIGKILL)
            continue
        part.kill()
        part.start(*(["--take-over"] if part is loop.trainer else []))
    return killed


def drained(loop: Loop, told: Told, samples: Samples) -> dict[str, Any]:
    """Wait until every click has become a sample and every full batch was learnt from; stop join and trainer."""

    def joined() -> bool:
        samples.look()
        return told.clicks <= samples.clicked and told.impressions.keys() <= samples.shown.keys()

    # An hour's samples take minutes to be read.
    patience_s = 90 + len(told.impressions) / 1000
    until(joined, "not every acknowledged event became a sample", loop, patience_s)
    loop.join.stop()
    samples.look()
    wanted = samples.count
    if loop.pace.deterministic:
        wanted -= wanted % loop.pace.batch
    until(
        lambda: learnt(loop.folder / "cuts") >= wanted, f"the trainer did not learn {wanted} samples", loop, patience_s
    )
    done: dict[str, Any] = json.loads(loop.trainer.stop())
    assert done["samples"] == wanted and not done["quarantined"] and not done["skipped"]
    return done


def learnt(cuts: Path) -> int:
    told = sorted(cuts.glob("gen-*/place.json"))
    return int(json.loads(told[-1].read_text())["samples"]) if told else 0


def check_samples(samples: Samples, told: Told) -> None:
    """Each acknowledged impression and click is one sample, once; nothing else is."""
    assert not samples.doubled, "a sample was appended twice"
    assert told.impressions.keys() <= samples.shown.keys() <= told.asked
    assert told.clicks <= samples.clicked <= told.clicked
    for id, (user, item) in told.impressions.items():
        assert samples.shown[id] == (f"u{user}", f"i{item}")


# --- what was learnt, and what is served ---


def trained(loop: Loop, file: str, scratch: Path) -> Floats:
    """The newest cut's scores for every user with every item, float64 [users x items]; `scratch` gets all of it."""
    bundle = load(loop.folder / loop.kind)
    document = settings.read(loop.folder / file).document
    made: Learner = learner(bundle, loop.folder / loop.kind, document.train, anew=document.model.anew)
    try:
        newest = sorted((loop.folder / document.checkpoints.folder).glob("gen-*"))[-1]
        assert made.resume(newest) is not None
        scratch.mkdir()
        whole = replace(bundle, scorer=made.scorer(scratch))
        whole.save(scratch / "bundle")
        return everyone(whole)
    finally:
        made.close()


def everyone(bundle: Bundle) -> Floats:
    users = [f"u{user}" for user in range(USERS) for _ in range(ITEMS)]
    items = [f"i{item}" for _ in range(USERS) for item in range(ITEMS)]
    return bundle.score(one_batch(pl.DataFrame({"user": users, "item": items})))


def served(loop: Loop, at: tuple[int, int]) -> Floats:
    asker = Asker(loop.port)
    until(lambda: asker.ask([("u1", "i1")]).at == at, f"the host did not come to {at}", loop)
    found: list[float] = []
    for user in range(USERS):
        reply = asker.ask([(f"u{user}", f"i{item}") for item in range(ITEMS)])
        assert reply.at == at
        found += reply.scores
    asker.close()
    return np.array(found)


def undisturbed(loop: Loop, samples: int) -> None:
    """A trainer of its own over the same samples, which nobody kills, into `calm-cuts`."""
    text = (loop.folder / "loop.toml").read_text()
    head, _, tail = text.partition("[publish]")
    calm = head.replace('name = "m"', 'name = "calm"').replace('"cuts"', '"calm-cuts"')
    (loop.folder / "calm.toml").write_text(calm + "[watch]" + tail.partition("[watch]")[2])
    trainer = Process("calm", loop.folder, "online", "run", f"{loop.folder}/calm.toml", "--json")
    trainer.start()
    try:
        until(
            lambda: learnt(loop.folder / "calm-cuts") >= samples,
            "the calm trainer did not come to the end",
            loop,
            90 + samples / 1000,
        )
        assert json.loads(trainer.stop())["samples"] == samples
    finally:
        if trainer.alive():
            trainer.kill()


def check_same(one: Path, two: Path) -> None:
    """Two bundles hold the same rows and dense weights. Tables know of their own order and identity, and are asked."""
    weights = [file.name for file in one.iterdir() if file.suffix in (".parquet", ".onnx")]
    assert weights and all((one / name).read_bytes() == (two / name).read_bytes() for name in weights)
    if (one / "training").is_dir():
        done = subprocess.run(
            [sys.executable, "-m", "penstock.cli", "table", "diff", "--json", one / "training", two / "training"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        tables = json.loads(done)["tables"]
        assert tables and all(table["same"] == table["rows"][0] == table["rows"][1] > 0 for table in tables)


@pytest.mark.parametrize(
    ("kind", "where", "kills", "every_s", "rate"),
    [
        ("lr", "log", 6, 1.5, 300.0),
        pytest.param("deep", "log", 30, 20.0, 500.0, marks=pytest.mark.soak),
        pytest.param("lr", "kafka", 180, 20.0, 1000.0, marks=pytest.mark.soak),
        pytest.param("lr", "redis", 30, 20.0, 1000.0, marks=pytest.mark.soak),
    ],
)
def test_whatever_is_killed_nothing_is_lost_or_doubled_and_what_is_served_was_learnt(
    started: Callable[..., Loop],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
    where: str,
    kills: int,
    every_s: float,
    rate: float,
) -> None:
    broker: Broker | None = None if where == "log" else request.getfixturevalue(where)
    loop = started(kind, Pace(deterministic=True, checkpoint_s=min(every_s / 4, 5.0), batch=64), broker)
    visitors = Visitors(loop.port, loop.feedback, rate)
    visitors.start()
    try:
        killed = disturb(loop, broker, kills, every_s)
    finally:
        told = visitors.stop()
    samples = Samples(loop.samples)
    done = drained(loop, told, samples)
    check_samples(samples, told)
    assert min(killed[part.name] for part in loop.parts) >= 2 and done["generation"] == 1 + killed["trainer"]
    assert len(told.clicks) > 100
    found = trained(loop, "loop.toml", tmp_path / "one")
    np.testing.assert_allclose(served(loop, (done["generation"], done["published"]["sequence"])), found, atol=1e-6)
    undisturbed(loop, done["samples"])
    assert trained(loop, "calm.toml", tmp_path / "two").tobytes() == found.tobytes()
    check_same(*(tmp_path / name / "bundle" for name in ("one", "two")))
    asked = f"{len(told.impressions):,} impressions, {len(told.clicks):,} clicks, {told.failed:,} rows not answered"
    print(f"killed {dict(killed)}; {asked}; {done['samples']:,} samples learnt")
