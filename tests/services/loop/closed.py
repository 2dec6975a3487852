"""The whole loop as processes: a host, a join and a trainer over four topics, and users who ask and click.

`Loop` writes the files that a user would write and starts what a user would start, as the demo does; its processes are
killed and started again. `Visitors` are the users: they know what was acknowledged to them.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from penstock.demo.processes import Program, Programs, at_home
from penstock.demo.service import SERVING_LINE
from penstock.registry import chain
from penstock.streams import StreamError, Topic, open_topic

START_S = 120.0
USERS, ITEMS = 400, 100
FEATURES = """<features xmlns="urn:penstock:features:1" name="loop" seed="3">
  <slot name="user" id="1" fn="hash" from="user"/>
  <slot name="item" id="2" fn="hash" from="item"/>
</features>
"""
FLOW = """<flow xmlns="urn:penstock:flow:1" name="loop">
  <node name="model" engine="local">
    <input name="rows" type="parquet" path="rows.parquet"/>
    <process name="mapped" type="features" from="rows" map="features.xml" keep="label"/>
    <process name="m" type="{kind}" from="mapped" label="label" {settings}/>
    <output name="out" type="model" from="m" path="{kind}"/>
  </node>
</flow>
"""
#: Plain gradient steps: what a sample does to a key that no other sample has can be told beforehand.
RATE = 0.003
SETTINGS = {
    "lr": f'optimizer="sgd" alpha="{RATE}"',
    "fm": 'optimizer="adagrad" alpha="0.05" rank="4"',
    "deep": 'model="wide_deep" dim="8" hidden="16" batch="256" embedding_rate="0.05" rate="0.005"',
}


@dataclass(frozen=True)
class Pace:
    """How soon each part hands on what it has; the defaults are those of the documents."""

    host_ticks_ms: int = 100
    feedback_ticks: str = "100ms"
    commit: str = "250ms"
    publish_ms: int = 250
    batch: int = 256
    deterministic: bool = False
    checkpoint_s: float = 5.0


class Process:
    """A program as the demo runs it, which may be killed and started anew; a log for each of its lives."""

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.name, self.arguments = name, arguments
        self._programs, self._lives = Programs(folder / "logs"), 0
        self.program: Program | None = None

    def start(self, *more: str) -> None:
        self._lives += 1
        self.program = self._programs.start(f"{self.name}-{self._lives}", *self.arguments, *more)

    def wait_for(self, line: str) -> None:
        assert self.program is not None
        self._programs.said(self.program, line)

    @property
    def pid(self) -> int:
        assert self.program is not None
        return self.program.process.pid

    def alive(self) -> bool:
        return self.program is not None and self.program.process.poll() is None

    def kill(self) -> None:
        """As by the kernel: nothing is said to it."""
        assert self.program is not None
        for child in children(self.pid):
            os.kill(child, signal.SIGKILL)
        self.program.process.kill()
        self.program.process.wait()

    def stop(self) -> str:
        """As by an operator; what it printed."""
        assert self.program is not None
        return self._programs.stop(self.program)

    def said(self) -> str:
        return self.program.log.read_text(errors="replace")[-4000:] if self.program is not None else ""


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in found.split()]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Loop:
    """A model of a kind (lr, fm, deep), its host, its join and its trainer in a folder.

    `base`: where feedback, samples and chain are: `log:FOLDER`, `kafka://HOST:PORT`, `redis://HOST:PORT`; impressions
    are on the host's own log.
    """

    def __init__(self, folder: Path, kind: str = "lr", base: str = "", pace: Pace | None = None) -> None:
        self.folder, self.kind, self.pace = folder, kind, pace or Pace()
        mark = base or f"log:{folder}"
        self.shown = f"log:{folder}/shown?partitions=2"
        self.feedback, self.samples, self.chain = (f"{mark}/{name}" for name in ("feedback", "samples", "chain"))
        self.port = free_port()
        self.host = Process("host", folder, "serve", f"{folder}/serving.toml")
        self.join = Process("join", folder, "online", "join", f"{folder}/join.toml")
        self.trainer = Process("trainer", folder, "online", "run", f"{folder}/loop.toml", "--json")
        self._running = ExitStack()

    def __enter__(self) -> Self:
        """Train a first model, start all three, and wait until the host serves."""
        with ExitStack() as stack:
            stack.enter_context(at_home(self.folder))
            stack.callback(self._kill)
            self._begin()
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _kill(self) -> None:
        for part in self.parts:
            if part.alive():
                part.kill()

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._train_first_model()
        self._write_files()
        for address in (self.feedback, self.samples, self.chain):
            open_topic(address).close()
        for part in self.parts:
            part.start()
        self.host.wait_for(SERVING_LINE)

    @property
    def parts(self) -> tuple[Process, Process, Process]:
        return self.host, self.join, self.trainer

    def _train_first_model(self) -> None:
        (self.folder / "features.xml").write_text(FEATURES)
        (self.folder / "flow.xml").write_text(FLOW.format(kind=self.kind, settings=SETTINGS[self.kind]))
        draws = random.Random(5)
        asked = [(draws.randrange(USERS), draws.randrange(ITEMS)) for _ in range(2000)]
        columns = {
            "user": [f"u{user}" for user, _ in asked],
            "item": [f"i{item}" for _, item in asked],
            "label": [int(draws.random() < truth(*pair)) for pair in asked],
        }
        pl.DataFrame(columns).write_parquet(self.folder / "rows.parquet")
        command = [sys.executable, "-m", "penstock.cli", "flow", "run", f"{self.folder}/flow.xml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
        assert done.returncode == 0, done.stderr

    def _write_files(self) -> None:
        pace = self.pace
        (self.folder / "serving.toml").write_text(
            f'[listen]\nhttp = "127.0.0.1:{self.port}"\n[host]\ndrain_s = 0\n'
            f'[models.m.versions]\n1 = "{self.kind}"\n[models.m.live]\ntopic = "{self.chain}"\nmax_lag_s = 5\n'
            f'[impressions]\ntopic = "{self.shown}"\ntick_ms = {pace.host_ticks_ms}\n'
        )
        (self.folder / "join.toml").write_text(
            f'name = "m"\nstate = "join.state"\nmodel = "m"\nlateness = "5s"\ncommit = "{pace.commit}"\n'
            f'[impressions]\ntopic = "{self.shown}"\n'
            f'[feedback]\ntopic = "{self.feedback}"\nticks = "{pace.feedback_ticks}"\n'
            f'[samples]\ntopic = "{self.samples}"\n[types.click]\nwindow = "30m"\n'
        )
        (self.folder / "loop.toml").write_text(
            f'[model]\nname = "m"\nstart = "{self.kind}"\n'
            f'[samples]\ntopic = "{self.samples}"\nquarantine = "bad.jsonl"\n'
            f"[train]\nbatch = {pace.batch}\nthreads = 1\ndeterministic = {str(pace.deterministic).lower()}\n"
            f'[checkpoints]\nfolder = "cuts"\nevery_s = {pace.checkpoint_s}\n'
            f'[publish]\ntopic = "{self.chain}"\nevery_ms = {pace.publish_ms}\n[watch]\ntell_s = 2\n'
        )


def truth(user: int, item: int) -> float:
    """How likely a user clicks an item."""
    margin = 1.5 * np.sin(user * 1.7) + 1.2 * np.cos(item * 2.3) - 1.2
    return float(1 / (1 + np.exp(-margin)))


# --- who asks and clicks ---


@dataclass(frozen=True)
class Reply:
    """An answer. `id`: of the request; `at`: generation and sequence."""

    id: str
    scores: list[float]
    at: tuple[int, int]
    time: float


class Asker:
    """One connection to the host; `ask` tries again until it is answered, where that is wanted."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(self, rows: Sequence[tuple[str | None, str | None]], id: str = "") -> Reply:
        """Raises `OSError`, `http.client.HTTPException` where there was no answer, `RuntimeError` where it was none."""
        inputs = [
            {"name": name, "datatype": "BYTES", "shape": [len(rows)], "data": [row[place] for row in rows]}
            for place, name in enumerate(("user", "item"))
        ]
        headers = {"Content-Type": "application/json", **({"X-Request-Id": id} if id else {})}
        try:
            self.connection.request("POST", "/v2/models/m/infer", json.dumps({"inputs": inputs}), headers)
            reply = self.connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {text[:300]!r}")
        said = json.loads(text)
        about = said.get("parameters", {})
        at = (about["generation"], about["sequence"])
        return Reply(reply.headers["X-Request-Id"], said["outputs"][0]["data"], at, time.time())

    def close(self) -> None:
        self.connection.close()


@dataclass
class Told:
    """What was acknowledged: impressions by id, clicks by id; and what was sent and not acknowledged."""

    impressions: dict[str, tuple[int, int]] = field(default_factory=dict)
    clicks: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    clicked: set[str] = field(default_factory=set)
    failed: int = 0


class Visitors:
    """Users at a rate: `rows` an answer, `rate` rows a second; they click by `truth`, and say so until they are heard.

    Clicks lie in `waiting` until the topic has acknowledged them: whoever is not heard says it again.
    """

    def __init__(self, port: int, feedback: str, rate: float, rows: int = 10, seed: int = 1) -> None:
        self.port, self.feedback, self.rate, self.rows = port, feedback, rate, rows
        self.told = Told()
        self.waiting: list[tuple[str, int]] = []
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._draws = random.Random(seed)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._ask, self._click)]
        self.faults: list[BaseException] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> Told:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
        if self.faults:
            raise self.faults[0]
        return self.told

    def _ask(self) -> None:
        """At intended times: a late answer does not thin out the questions after it."""
        asker, draws, number = Asker(self.port), self._draws, 0
        every, at = self.rows / self.rate, time.monotonic()
        try:
            while not self._stopping.is_set():
                at = max(at + every, time.monotonic() - 1.0)
                self._stopping.wait(max(0.0, at - time.monotonic()))
                # The known ones come again and again; the tail is new every time.
                pairs = [(int(USERS * draws.random() ** 2), int(ITEMS * draws.random() ** 2)) for _ in range(self.rows)]
                number += 1
                id = f"v{os.getpid()}-{number}"
                ids = [f"{id}/{row}" for row in range(self.rows)]
                self.told.asked.update(ids)
                try:
                    asker.ask([(f"u{user}", f"i{item}") for user, item in pairs], id)
                except (OSError, http.client.HTTPException, RuntimeError):
                    self.told.failed += self.rows
                    self._stopping.wait(0.05)
                    continue
                self.told.impressions.update(zip(ids, pairs, strict=True))
                clicked = [one for one, pair in zip(ids, pairs, strict=True) if draws.random() < truth(*pair)]
                with self._lock:
                    self.waiting += [(one, int(time.time() * 1000)) for one in clicked]
        except BaseException as error:
            self.faults.append(error)
        finally:
            asker.close()

    def _click(self) -> None:
        topic: Topic | None = None
        try:
            while not (self._stopping.is_set() and not self._threads[0].is_alive() and not self.waiting):
                self._stopping.wait(0.02)
                with self._lock:
                    part = self.waiting[:1000]
                if not part:
                    time.sleep(0.005)
                    continue
                self.told.clicked.update(id for id, _ in part)
                try:
                    topic = topic or open_topic(self.feedback)
                    click(topic, part)
                except StreamError:  # said again, under the same name
                    time.sleep(0.2)
                    continue
                self.told.clicks.update(id for id, _ in part)
                with self._lock:
                    del self.waiting[: len(part)]
        except BaseException as error:
            self.faults.append(error)
        finally:
            if topic is not None:
                topic.close()


def click(topic: Topic, clicks: Sequence[tuple[str, int]]) -> None:
    values = [
        json.dumps({"id": id, "type": "click", "time_ms": at, "event": f"{id}/click"}).encode() for id, at in clicks
    ]
    topic.append(values, keys=[id.encode() for id, _ in clicks])


# --- what came of it ---


class Samples:
    """What is in a topic of samples, told apart as it comes: an hour's are millions."""

    def __init__(self, address: str) -> None:
        self.count = 0
        #: By id: user and item.
        self.shown: dict[str, tuple[str, str]] = {}
        self.clicked: set[str] = set()
        #: Those of which there are two.
        self.doubled: list[tuple[str, str, int]] = []
        self._address = address
        self._next: dict[int, int] = {}
        self._ids: defaultdict[tuple[str, int], set[str]] = defaultdict(set)

    def look(self) -> None:
        """Take what came since the last look."""
        with open_topic(self._address, create=False) as topic:
            for partition in range(topic.partitions):
                begin = self._next.get(partition, topic.start(partition))
                for record in chain.records(topic, partition, begin, None):
                    self._next[partition] = record.offset + 1
                    if b'"_tick_ms"' not in record.value[:12]:
                        self._take(json.loads(record.value))

    def _take(self, sample: Mapping[str, Any]) -> None:
        id, kind, revision = identity = sample["_id"], sample["_kind"], sample["_revision"]
        self.count += 1
        known = self._ids[kind, revision]
        if id in known:
            self.doubled.append(identity)
        known.add(id)
        if kind == "impression":
            self.shown[id] = sys.intern(sample["user"]), sys.intern(sample["item"])
        elif kind == "correction":
            self.clicked.add(id)
