"""What is measured while the closed loop runs: points over time for the views, figures at the end."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.demo.freshness import Position
from penstock.training.metrics import auc
from penstock.training.streaming_metrics import StreamingMetrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Whose scores are judged: the model that follows the loop, the same one as it was, the simulator's true chances.
JUDGED = ("loop", "frozen", "best")
#: Impressions after which one counts half; before so many, nothing is drawn.
HALF_LIFE, ENOUGH = 3_000, 1_000
#: Seconds that rates and freshness are told of.
LATELY_S = 5.0


@dataclass(frozen=True)
class Point:
    """One moment. auc: decayed, by whose scores; freshness in seconds; rows: in the trainer's table."""

    at_s: float
    auc: dict[str, float | None]
    events_per_s: float
    fresh_p50: float | None
    fresh_p95: float | None
    rows: int
    added: int
    evicted: int
    position: Position


@dataclass(frozen=True)
class Phase:
    """AUC of all impressions of a part of the time, by whose scores."""

    name: str
    impressions: int
    auc: dict[str, float | None]


@dataclass(frozen=True)
class Figures:
    """What came of it. changed_s: when tastes changed; counts: what was shown, clicked, joined, learnt."""

    seconds: float
    changed_s: float
    points: tuple[Point, ...]
    phases: tuple[Phase, ...]
    fresh_p50: float | None
    fresh_p95: float | None
    fresh_most: float | None
    counts: dict[str, int]
    events_per_s: float

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: everything but the points."""
        return {name: value for name, value in asdict(self).items() if name != "points"}

    @property
    def last(self) -> Point:
        return self.points[-1]


@dataclass
class Measured:
    """Filled as the loop goes on, by one thread. Times are seconds since the first visitor."""

    changed_s: float | None = None
    shown: int = 0
    clicked: int = 0
    points: list[Point] = field(default_factory=list)
    _times: list[Floats] = field(default_factory=list)
    _labels: list[Floats] = field(default_factory=list)
    _scores: dict[str, list[Floats]] = field(default_factory=lambda: {name: [] for name in JUDGED})
    _decayed: dict[str, StreamingMetrics] = field(
        default_factory=lambda: {name: StreamingMetrics(half_life=HALF_LIFE) for name in JUDGED}
    )
    _new: int = 0
    _fresh: list[tuple[float, float]] = field(default_factory=list)
    _events: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def events(self) -> int:
        """Impressions and clicks; each is a sample."""
        return self.shown + self.clicked

    def page(self, at_s: float, labels: Floats, **scores: Floats) -> None:
        """What was shown at once, what was clicked of it, and what `JUDGED` had said of each, f64 [n]."""
        self._times.append(np.full(len(labels), at_s))
        self._labels.append(labels)
        for name in JUDGED:
            self._scores[name].append(scores[name])
        self._new += 1
        self.shown += len(labels)
        self.happened(at_s, len(labels))

    def happened(self, at_s: float, events: int) -> None:
        """Impressions and clicks, for the rate."""
        self._events.append((at_s, events))

    def covered(self, found: list[tuple[float, float]]) -> None:
        """Clicks that a reply has covered: (when, seconds)."""
        self._fresh += found

    def point(self, at_s: float, rows: int, added: int, evicted: int, position: Position) -> Point:
        """How things stand now."""
        if self._new:
            labels = np.concatenate(self._labels[-self._new :])
            for name, metric in self._decayed.items():
                metric.update(labels, np.concatenate(self._scores[name][-self._new :]))
            self._new = 0
        while self._events and self._events[0][0] < at_s - LATELY_S:
            self._events.popleft()
        lately = min(LATELY_S, at_s) or 1.0
        rate = sum(events for _, events in self._events) / lately
        seconds = [seconds for when, seconds in self._fresh[-5_000:] if when + seconds >= at_s - LATELY_S]
        enough = self.shown >= ENOUGH
        found = Point(
            at_s, {name: m.values()["decayed_auc"] if enough else None for name, m in self._decayed.items()},
            rate, quantile(seconds, 0.5), quantile(seconds, 0.95), rows, added, evicted, position,
        )  # fmt: skip
        self.points.append(found)
        return found

    def figures(self, seconds: float, counts: dict[str, int]) -> Figures:
        """Everything, at the end of the visitors' time."""
        changed_s = self.changed_s if self.changed_s is not None else seconds
        after = seconds - changed_s
        parts = (
            ("before tastes changed", 0.0, changed_s),
            (f"the first {after / 5:.0f} s after", changed_s, changed_s + after / 5),
            (f"the last {after / 5:.0f} s", seconds - after / 5, seconds),
        )
        fresh = [seconds for _, seconds in self._fresh]
        return Figures(
            seconds, changed_s, tuple(self.points), tuple(self._phase(*part) for part in parts),
            quantile(fresh, 0.5), quantile(fresh, 0.95), max(fresh, default=None), counts,
            self.events / seconds,
        )  # fmt: skip

    def _phase(self, name: str, since_s: float, until_s: float) -> Phase:
        times, labels = np.concatenate(self._times), np.concatenate(self._labels)
        part = (times >= since_s) & (times < until_s)
        found = {who: auc(labels[part], np.concatenate(self._scores[who])[part]) for who in JUDGED}
        return Phase(name, int(part.sum()), found)


def quantile(values: list[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None
