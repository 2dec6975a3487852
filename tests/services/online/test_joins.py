"""Each sample exactly once, whatever is killed; the same join on the log, Redis and Kafka."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.online.runner import Runner
from penstock.online.settings import read
from penstock.streams import Tail, open_topic

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


def test_of_two_joins_on_one_kafka_topic_the_later_goes_on_and_the_earlier_ends(
    made: Callable[[str], Backend],  # noqa: F811
    tmp_path: Path,
) -> None:
    """As when a machine that was taken for dead is not: its state was brought to another one, where a join began."""
    staged, shown, done, out = [made("log"), made("log")], made("log"), made("log"), made("kafka")
    sources = [staged[0].open(partitions=3), staged[1].open(partitions=2)]
    history.write(*sources, 900)
    calm_file = history.join_file(
        tmp_path, "calm", staged[0].base, staged[1].base, f"log:{tmp_path / 'calm.log'}?partitions=2"
    )
    Runner(read(calm_file), told).run(drain=True)
    calm = history.samples(open_topic(f"log:{tmp_path / 'calm.log'}"))

    targets = [shown.open(partitions=3), done.open(partitions=2)]
    topic = out.open(partitions=2)
    file = history.join_file(tmp_path, "wild", shown.base, done.base, out.base, commit="20ms")
    later = tmp_path / "later.toml"
    later.write_text(file.read_text().replace("wild.state", "later.state"))
    parts, fed = 60, 0
    tail, appended, begun = Tail(topic), 0, 0

    def count() -> int:
        """Samples. A join that begins says so by a tick of its own (`begun`), which fences who was there."""
        nonlocal appended, begun
        values = [record.value for _, record in tail.read()]
        appended += sum(b'"_id"' in value for value in values)
        begun += sum(json.loads(value).get("_tick_ms") == 1 for value in values)
        return appended

    def fed_until(holds: Callable[[], bool], most: int) -> None:
        nonlocal fed
        ends = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < ends, "it did not come about"
            if fed < most:
                for source, target in zip(sources, targets, strict=True):
                    history.feed(source, target, fed, parts)
                fed += 1
            time.sleep(0.05)

    with started(file) as first:
        fed_until(lambda: count() > 200, 20)
        first.send_signal(signal.SIGSTOP)
        shutil.copytree(tmp_path / "wild.state", tmp_path / "later.state")
        first.send_signal(signal.SIGCONT)
        seen = count()
        fed_until(lambda: count() > seen + 50, 40)
        with started(later) as second:
            fed_until(lambda: count() > 0 and begun >= 4, parts - 15)  # two joins, two partitions
            fed_until(lambda: first.poll() is not None, parts)
            assert first.returncode == 1
            said = first.communicate()[1]
            assert "STRM018" in said and second.poll() is None, said
            fed_until(lambda: fed == parts and count() == sum(map(len, calm)), parts)
            second.send_signal(signal.SIGTERM)
            assert second.wait(60) == 0
    assert history.samples(topic) == calm


@contextmanager
def started(file: Path) -> Iterator[subprocess.Popen[str]]:
    """`penstock online join`, killed at the end if it has not ended."""
    command = [sys.executable, "-m", "penstock.cli", "online", "join", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
