"""Each sample exactly once, whatever is killed; the same join on the log, Redis and Kafka."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.online.runner import Runner
from penstock.online.settings import read
from penstock.streams import open_topic

from ..streams.conftest import Backend, kafka, made, redis  # noqa: F401
from . import history


def told(said: str) -> None:
    print(said)


def disturbed(file: Path, kills: int) -> int:
    command = [sys.executable, history.__file__, str(file), str(kills), "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(
    ("name", "emit", "count", "kills"),
    [
        ("log", "at_once", 1_500, 8),
        ("redis", "at_close", 600, 3),
        ("kafka", "at_once", 600, 3),
        pytest.param("log", "at_once", 12_000, 50, marks=pytest.mark.soak),
        pytest.param("log", "at_close", 12_000, 50, marks=pytest.mark.soak),
        pytest.param("redis", "at_once", 6_000, 25, marks=pytest.mark.soak),
        pytest.param("kafka", "at_close", 6_000, 25, marks=pytest.mark.soak),
    ],
)
def test_joins_that_are_killed_append_what_one_in_peace_does(
    made: Callable[[str], Backend],  # noqa: F811
    tmp_path: Path,
    name: str,
    emit: str,
    count: int,
    kills: int,
) -> None:
    shown, done, out = made(name), made(name), made(name)
    history.write(shown.open(partitions=3), done.open(partitions=2), count)
    calm_file = history.join_file(
        tmp_path, "calm", shown.base, done.base, f"log:{tmp_path / 'calm.log'}?partitions=2", emit=emit
    )
    counts = Runner(read(calm_file), told).run(drain=True)
    calm = history.samples(open_topic(f"log:{tmp_path / 'calm.log'}"))
    assert counts["samples"] == sum(map(len, calm)) > count / 2
    assert counts["poison"] > history.PROBLEMS and counts["matched"] and counts["impressions_repeated"]
    assert counts["orphans_forgotten"] >= 9 and counts["feedback_repeated"] and counts["feedback_outside"]

    wild = history.join_file(tmp_path, "wild", shown.base, done.base, out.address(partitions=2), emit=emit)
    assert disturbed(wild, kills) == kills, "they died before the work was done"
    found = history.samples(out.open())
    assert found == calm
    times = [[sample["_emit_ms"] for sample in part] for part in found]
    assert times == [sorted(part) for part in times]
    again = Runner(read(wild), told).run(drain=True)
    assert again == counts and history.samples(out.open()) == calm
    keys = {(json.dumps(s["_id"]), s["_kind"], s["_revision"]) for part in found for s in part}
    assert len(keys) == sum(map(len, found)), "an identity is one sample's"


@pytest.mark.parametrize("name", ["log", "redis", "kafka"])
def test_who_is_killed_inside_an_append_to_several_partitions_is_followed_by_one_who_appends_the_others(
    made: Callable[[str], Backend],  # noqa: F811
    tmp_path: Path,
    name: str,
) -> None:
    shown, done, out = made("log"), made("log"), made(name)
    history.write(shown.open(partitions=3), done.open(partitions=2), 400)
    calm_file = history.join_file(tmp_path, "calm", shown.base, done.base, f"log:{tmp_path / 'calm.log'}?partitions=3")
    Runner(read(calm_file), told).run(drain=True)
    calm = history.samples(open_topic(f"log:{tmp_path / 'calm.log'}"))
    wild = history.join_file(tmp_path, "wild", shown.base, done.base, out.address(partitions=3))
    written = 0
    for times in (2, 2, 3):
        command = [sys.executable, history.__file__, str(wild), "amid", str(times)]
        died = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert died.returncode == -signal.SIGKILL, died.stderr
        found = history.samples(out.open())
        assert all(part == whole[: len(part)] for part, whole in zip(found, calm, strict=True))
        assert has_gaps(found, calm) == (name != "kafka"), "some partitions are written; of a transaction all or none"
        assert sum(map(len, found)) > written
        written = sum(map(len, found))
    Runner(read(wild), told).run(drain=True)
    assert history.samples(out.open()) == calm


def has_gaps(found: list[list[dict[str, Any]]], calm: list[list[dict[str, Any]]]) -> bool:
    """Whether a sample is there, and one that is emitted before it is not."""
    newest = max(sample["_emit_ms"] for part in found for sample in part)
    rest = [sample for part, whole in zip(found, calm, strict=True) for sample in whole[len(part) :]]
    return min(sample["_emit_ms"] for sample in rest) < newest
