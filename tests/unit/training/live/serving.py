"""A serving host in this process, a loop that runs beside the test, and waiting for what comes of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from penstock.serving import config as configs
from penstock.serving.client import Client
from penstock.serving.host import Control
from penstock.training.bundle import load
from penstock.training.live import settings
from penstock.training.live.run import Loop

Floats = npt.NDArray[np.float64]


def until(holds: Callable[[], bool], what: str, patience_s: float = 60) -> None:
    ends = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


class Host:
    """What `penstock serve` runs, with `version` of the model `ctr` following the chain in FOLDER/chain."""

    def __init__(self, folder: Path, version: str | Path, topic: str = "") -> None:
        path = folder / "serving.toml"
        path.write_text(
            f'[models.ctr.versions]\n1 = "{version}"\n'
            f'[models.ctr.live]\ntopic = "{topic or f"log:{folder}/chain"}"\noverlay_mb = 4\n[host]\ndrain_s = 0\n'
        )
        self.control = Control(configs.read(path))
        self.client = Client(f"http://{self.control.host.addresses[0]}", retries=0)
        self._thread = threading.Thread(target=self.control.run, args=(lambda *_: None,), daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        return bool(self.control.host.ready())

    def at(self) -> tuple[int, int]:
        return self.asked(pl.DataFrame({"user": ["u1"], "item": ["i1"], "price": [1.0]}))[1]

    def asked(self, frame: pl.DataFrame) -> tuple[Floats, tuple[int, int]]:
        """Scores, and at which generation and sequence they were made."""
        reply = self.client.infer("ctr", frame)
        assert reply.position is not None
        return reply.outputs["score"].astype(np.float64).ravel(), reply.position

    def stop(self) -> None:
        self.client.close()
        self.control.stop.set()
        self._thread.join()
        self.control.drain()


def published(loop: Loop) -> tuple[int, int]:
    """Generation and sequence of the last delta of a loop that has ended."""
    done = loop.done  # type: ignore[attr-defined]
    return done["generation"], done["published"]["sequence"]


def scored(loop: Loop, start: Path, scratch: Path, frame: pl.DataFrame) -> Floats:
    """What the trainer's weights give; `start`: the bundle that it began with."""
    return replace(load(start), scorer=loop.learner.scorer(scratch)).score(frame)


@contextmanager
def running(path: Path, **options: Any) -> Iterator[Loop]:
    """A loop in a thread; what ends it before it is stopped is raised when the context ends."""
    loop, failed = Loop(settings.read(path), **options), []

    def run() -> None:
        try:
            loop.done = loop.run()  # type: ignore[attr-defined]
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield loop
    finally:
        loop.stop()
        thread.join()
    if failed:
        raise failed[0]
