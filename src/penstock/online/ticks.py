"""Ticks: records that say what time it is, so that a partition without records does not hold up the others."""

from __future__ import annotations

import json
import threading
import time
from types import TracebackType
from typing import Self

from penstock.streams import StreamError, Topic


def tick(topic: Topic, time_ms: int) -> None:
    """Tell every partition that its writers' clock has come to `time_ms`."""
    value = json.dumps({"_tick_ms": time_ms}).encode()
    for partition in range(topic.partitions):
        topic.append([value], times_ms=[time_ms], partition=partition)


class Ticker:
    """Ticks a topic with the machine's time until it is closed; a tick that fails is the next one's."""

    def __init__(self, topic: Topic, every_s: float) -> None:
        self._topic, self._every_s = topic, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="penstock-ticks", daemon=True)

    def _work(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                tick(self._topic, int(time.time() * 1000))
            except StreamError:
                continue

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
