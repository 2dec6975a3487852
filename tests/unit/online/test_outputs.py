"""A sample is appended once, however often and at whatever point those who append it are killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.online.joiner import KINDS, Sample
from penstock.online.outputs import Outputs
from penstock.streams import Topic, open_topic

FRONTIER = 1_000


def sample(number: int) -> Sample:
    value = {"_id": f"r{number}", "_kind": KINDS[0], "_revision": 0, "_emit_ms": FRONTIER + number}
    return Sample(FRONTIER + number, f"r{number}".encode(), 0, 0, json.dumps(value).encode())


def ids(topic: Topic) -> list[str]:
    found = [record for number in range(topic.partitions) for record in topic.read(number, 0).records]
    return sorted(json.loads(record.value)["_id"] for record in found)


def begun(topic: Topic, positions: dict[int, int]) -> Outputs:
    """As a restart begins."""
    outputs = Outputs(topic, dict(positions))
    outputs.look(print)
    return outputs


@pytest.fixture
def topic(tmp_path: Path) -> Topic:
    return open_topic(f"log:{tmp_path}/samples?partitions=2")


def test_who_is_killed_while_samples_come_again_is_followed_by_one_who_finds_the_rest(topic: Topic) -> None:
    samples = [sample(number) for number in range(20)]
    Outputs(topic, {0: 0, 1: 0}).append(samples)  # killed before it committed
    positions = {0: 0, 1: 0}
    for number in range(0, 20, 4):
        # Each sees a few come again, commits, and is killed.
        outputs = begun(topic, positions)
        assert outputs.unmatched == 20 - number
        outputs.append(samples[number : number + 4])
        positions = outputs.positions(FRONTIER)
    assert begun(topic, positions).unmatched == 0
    assert ids(topic) == sorted(f"r{number}" for number in range(20))
    outputs.append([sample(20)])
    assert outputs.positions(FRONTIER) == {number: topic.end(number) for number in range(2)}


def test_what_cannot_come_again_holds_no_position_back(topic: Topic) -> None:
    Outputs(topic, {0: 0, 1: 0}).append([sample(number) for number in range(8)])
    outputs = begun(topic, {0: 0, 1: 0})
    assert outputs.positions(FRONTIER) == {0: 0, 1: 0}
    # Its input was trimmed meanwhile: the join goes on behind it.
    assert outputs.positions(FRONTIER + 8) == {number: topic.end(number) for number in range(2)}
    assert outputs.unmatched == 0
