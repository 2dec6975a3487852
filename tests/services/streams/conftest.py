"""Brokers as fixtures: one of each a session, a topic of its own a test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from penstock.streams import Topic, open_topic

from .brokers import Broker, Kafka, NotInstalled, Redis

AnyBroker = TypeVar("AnyBroker", bound=Broker)


@contextmanager
def running(make: Callable[[], AnyBroker]) -> Iterator[AnyBroker]:
    """Skipped with the reason where it cannot be installed, which fails in CI."""
    try:
        broker = make()
    except NotInstalled as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running(lambda: Kafka(tmp_path_factory.mktemp("kafka"))) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running(lambda: Redis(tmp_path_factory.mktemp("redis"))) as broker:
        yield broker


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Broker]:
    """A Redis that no other test needs: it may be killed and started."""
    with running(lambda: Redis(tmp_path / "redis")) as broker:
        yield broker


@dataclass
class Backend:
    """Somewhere a topic can be. `broker`: None where there is none."""

    name: str
    base: str
    broker: Broker | None
    opened: list[Topic]

    def address(self, **options: object) -> str:
        said = "&".join(f"{key}={value}" for key, value in options.items())
        return f"{self.base}?{said}"

    def open(self, create: bool = True, **options: object) -> Topic:
        topic = open_topic(self.address(**options), create=create)
        self.opened.append(topic)
        return topic


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Backend]]:
    opened: list[Topic] = []

    def make(name: str) -> Backend:
        topic = f"t{secrets.token_hex(6)}"
        if name == "log":
            return Backend("log", f"log:{tmp_path / topic}", None, opened)
        broker: Broker = request.getfixturevalue(name)
        return Backend(name, f"{broker.address}/{topic}", broker, opened)

    yield make
    for topic in opened:
        topic.close()


@pytest.fixture(params=["log", "redis", "kafka"])
def backend(request: pytest.FixtureRequest, made: Callable[[str], Backend]) -> Backend:
    """A topic that is not there yet, in each of the three."""
    return made(request.param)
