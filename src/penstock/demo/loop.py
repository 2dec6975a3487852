"""The closed loop, whole: a model is served, visitors click, clicks become samples, samples weights, and the host
serves them a moment later. Half way the visitors' taste changes.

Every part is the real one, in a process of its own: `penstock serve`, `penstock online join`, `penstock online run`,
and topics between them. Only the visitors are simulated (`crowd.py`).
"""

from __future__ import annotations

import heapq
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from penstock.demo.crowd import Crowd, Page
from penstock.demo.figures import Figures, Measured, Point
from penstock.demo.freshness import Freshness
from penstock.demo.processes import Program, Programs, at_home, ended_by_sigterm
from penstock.demo.service import SERVING_LINE
from penstock.demo.watching import Watch
from penstock.errors import PenstockError
from penstock.serving.client import Client
from penstock.streams import Topic, open_topic

MODEL, FROZEN = "feed", "frozen"
#: Pages of visitors before the loop is there, and a second while it is.
HISTORY_PAGES, PAGES_PER_S = 3_000, 100
#: Between a page and a click on it, on average and at most; between two looks at the measurements.
THINKS_S, THINKS_MOST_S, POINT_S = 0.5, 3.0, 0.5
#: How long the loop may take to come to rest at the end.
REST_S = 60.0
METRICS_LINE = r"http://(\S+)/metrics"
TOPICS = ("impressions?partitions=2", "feedback?partitions=2", "samples?partitions=2", "chain")


class View(Protocol):
    """Shows a person how it goes."""

    def show(self, measured: Measured, point: Point) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What runs."""

    host: Program
    join: Program
    trainer: Program
    url: str
    trainer_metrics: str


def close_the_loop(
    folder: Path, run_flow: Callable[[Path], Mapping[str, Any]], tell: Callable[[str], None],
    view: AbstractContextManager[View], seconds: float, pages_per_s: float = PAGES_PER_S,
) -> Figures:  # fmt: skip
    """Train a model in `folder` (its flow and settings lie there already), close the loop around it, and let visitors
    come for `seconds`; longer where the machine does not keep up.

    Raises `PenstockError` where a part fails, or a sample was lost or came twice. Everything is stopped.
    """
    with at_home(folder.parent), ended_by_sigterm():
        crowd = _begin(folder, run_flow, tell)
        tell("closing the loop: a host, a join and a trainer start ...")
        with Programs(folder / "logs") as programs:
            parts = _start(folder, programs)
            freshness = Freshness()
            with (
                open_topic(f"log:{folder / 'topics' / 'feedback'}", create=False) as feedback,
                Watch(folder / "topics", MODEL, parts.trainer_metrics, freshness) as watch,
                Client(parts.url, timeout_s=30.0) as client,
                view as shown,
            ):
                visit = Visit(crowd, client, feedback, freshness, watch, programs)
                visit.all(round(seconds * pages_per_s), pages_per_s, shown)
                lasted_s = visit.now_s
                visit.come_to_rest()
            counts = _stopped(programs, parts, visit.measured)
        return visit.measured.figures(lasted_s, counts)


def _begin(folder: Path, run_flow: Callable[[Path], Mapping[str, Any]], tell: Callable[[str], None]) -> Crowd:
    """A model that knows what visitors did so far, in the registry, and empty topics."""
    from penstock.registry import Registry

    for name in ("topics", "state", "cuts", "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    crowd = Crowd()
    history = crowd.history(HISTORY_PAGES).drop("chance")
    history.write_parquet(folder / "history.parquet")
    tell(f"training the model to begin with, on {history.height:,} impressions ...")
    run = run_flow(folder / "loop.xml")
    with Registry() as registry:
        metrics = run["metrics"]["model.quality"]
        registry.push(Path(run["outputs"]["model.bundle"]), MODEL, aliases=["start"], metrics=metrics)
    for name in TOPICS:
        open_topic(f"log:{folder / 'topics'}/{name}").close()
    return crowd


def _start(folder: Path, programs: Programs) -> Parts:
    trainer = programs.start("online", "online", "run", str(folder / "online.toml"), "--take-over", "--json")
    join = programs.start("join", "online", "join", str(folder / "join.toml"), "--json")
    host = programs.start("serving", "serve", str(folder / "serving.toml"))
    url = f"http://{programs.said(host, SERVING_LINE)[1]}"
    programs.said(join, METRICS_LINE)
    return Parts(host, join, trainer, url, programs.said(trainer, METRICS_LINE)[0])


def _stopped(programs: Programs, parts: Parts, measured: Measured) -> dict[str, int]:
    """End the parts one after the other; what each has counted. Raises where the counts do not agree."""
    joined = json.loads(programs.stop(parts.join))
    learnt = json.loads(programs.stop(parts.trainer))
    programs.stop(parts.host)
    counts = {
        "impressions": measured.shown, "clicks": measured.clicked, "impressions_joined": joined.get("impressions", 0),
        "clicks_joined": joined.get("matched", 0), "samples": joined.get("samples", 0), "learnt": learnt["samples"],
        "quarantined": learnt["quarantined"] + joined.get("poison", 0), "deltas": learnt["published"]["sequence"],
    }  # fmt: skip
    if (
        not counts["impressions_joined"] + counts["clicks_joined"]
        == counts["samples"]
        == counts["learnt"]
        == measured.events
    ):
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise PenstockError(f"samples were lost, or came twice: {said}", "report this: it is a bug")
    return counts


class Visit:
    """Visitors come, are shown pages, think, click."""

    def __init__(
        self, crowd: Crowd, client: Client, feedback: Topic, freshness: Freshness, watch: Watch, programs: Programs
    ) -> None:
        self.crowd, self.client, self.feedback, self.freshness = crowd, client, feedback, freshness
        self.watch, self.programs = watch, programs
        self.measured = Measured()
        self._thinking: list[tuple[float, str]] = []
        self._thoughts = np.random.default_rng(11)
        self._pages = 0
        self._point_at = 0.0
        self._began = time.time()

    @property
    def now_s(self) -> float:
        return time.time() - self._began

    def all(self, pages: int, pages_per_s: float, view: View) -> None:
        """`pages` pages, at most so many a second; tastes change half way."""
        for number in range(pages):
            if number == pages // 2:
                self.crowd.change_taste()
                self.measured.changed_s = self.now_s
            self.page()
            self._look(view)
            self._wait_until((number + 1) / pages_per_s)
        self._look(view, last=True)

    def page(self, clicks: bool = True) -> None:
        """Somebody opens a page: both models score it, and the visitor perhaps clicks."""
        page = self.crowd.page()
        scores = self._scored(MODEL, page), self._scored(FROZEN, page)
        now = self.now_s
        clicked = self.crowd.clicks(page) & clicks
        self.measured.page(now, clicked.astype(np.float64), loop=scores[0], frozen=scores[1], best=page.chance)
        for row in np.flatnonzero(clicked):
            thought_s = min(float(self._thoughts.exponential(THINKS_S)), THINKS_MOST_S)
            heapq.heappush(self._thinking, (now + thought_s, f"{_request(MODEL, self._pages)}/{row}"))
        self._pages += 1
        self._click()

    def come_to_rest(self) -> None:
        """Until every click is in what is served, and every sample learnt from. Raises where that does not come."""
        deadline = time.monotonic() + REST_S
        while self.freshness.waiting or self._thinking or self.watch.learnt < self.measured.events:
            if self.freshness.waiting or self._thinking:
                self.page(clicks=False)  # a reply that covers a click needs somebody who asks
            self.measured.covered([(at_ms / 1000 - self._began, s) for at_ms, s in self.freshness.take()])
            self._check()
            if time.monotonic() > deadline:
                joined = f"{self.watch.samples:,} of {self.measured.events:,} samples were joined"
                said = f"the loop does not come to rest: {joined}, {self.watch.learnt:,} learnt"
                raise PenstockError(said, "was the machine busy with something else?")
            time.sleep(0.05)

    def _scored(self, model: str, page: Page) -> Any:
        shared = {name: pa.array([value]) for name, value in page.visitor.items()}
        if page.visitor["age"] is None:
            shared["age"] = pa.array([None], pa.int64())
        asked = _request(model, self._pages)
        reply = self.client.infer(model, {**shared, **page.items}, broadcast=list(shared), request_id=asked)
        if reply.position is not None:
            self.freshness.replied(reply.position, time.time() * 1000)
        return reply.outputs["score"].astype(np.float64).ravel()

    def _click(self) -> None:
        """Clicks that are due go to the topic of feedback, with the time at which they were made."""
        ids, values = [], []
        while self._thinking and self._thinking[0][0] <= self.now_s:
            due_s, id_ = heapq.heappop(self._thinking)
            at_ms = (self._began + due_s) * 1000
            self.freshness.clicked(id_, at_ms)
            ids.append(id_.encode())
            values.append(json.dumps({"id": id_, "type": "click", "time_ms": int(at_ms)}).encode())
        if ids:
            self.feedback.append(values, keys=ids)
            self.measured.clicked += len(ids)
            self.measured.happened(self.now_s, len(ids))

    def _wait_until(self, at_s: float) -> None:
        while (left := at_s - self.now_s) > 0:
            self._click()
            time.sleep(min(left, 0.005))

    def _look(self, view: View, last: bool = False) -> None:
        now = self.now_s
        if now < self._point_at and not last:
            return
        self._point_at = now + POINT_S
        self._check()
        self.measured.covered([(at_ms / 1000 - self._began, seconds) for at_ms, seconds in self.freshness.take()])
        watch = self.watch
        view.show(self.measured, self.measured.point(now, watch.rows, watch.added, watch.evicted, watch.position))

    def _check(self) -> None:
        self.programs.check()
        self.watch.check()


def _request(model: str, page: int) -> str:
    return f"{model}-{page}"
