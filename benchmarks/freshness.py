"""Freshness: from a user's click to the first answer of the host that was scored with what the click taught.

The whole loop runs as users start it (`penstock serve`, `online join`, `online run` with `lr`), at 2,000 events/s:
rows that are answered and logged, and clicks. Beside them probers show something to a user that nobody else is, click,
and ask again and again. Freshness is the time from the click's own timestamp to the first answer whose (generation,
sequence) covers the click's sample. Then the user is asked for, beside a stranger: the difference of their log-odds is
the user's weight, and must be what the click is known to teach (a stranger's is 0, and before the click it is below).
Topics are the embedded log, Redis, and Kafka (impressions are always on the host's own log). A fourth case is a deep
model (wide & deep) on the embedded log, whose weights nobody can tell beforehand: there the position alone counts.
Goal: p95 <= 2 s, publishing every 250 ms, samples emitted at once.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np

from penstock.demo.freshness import corrections
from penstock.registry.chain_reading import ChainTail
from penstock.streams import Tail, Topic, open_topic

sys.path.insert(0, str(harness.HERE.parent / "tests"))
from services.loop.closed import RATE, START_S, Asker, Loop, Pace, Visitors, click
from services.streams.brokers import Broker, Kafka, Redis

EVENTS_A_SECOND = 2000
#: Clicks an answered row, by the visitors' truth.
CLICKS = 0.32
PROBERS, ASK_EVERY_S, PATIENCE_S = 3, 0.015, 30.0
WARM_S = 6.0
#: How far a weight may be from what is known, as the bias moves meanwhile. A click lost or doubled is farther.
CLOSE = 0.5
STAGES = ("heard", "joined", "learnt_published", "applied")


@dataclass
class Probe:
    """A click and what came of it. Times are seconds since the epoch; `weight`: of its user when that was served."""

    id: str
    known: float
    clicked: float
    heard: float
    served: float = 0.0
    weight: float = 0.0


class Tails:
    """Two threads that watch topics: when each correction was there, and when the delta that covers it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.samples: dict[str, tuple[int, float]] = {}
        self.deltas: list[tuple[tuple[int, int], int, float]] = []
        self.events = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._watch_samples, self._watch_chain)]

    def __enter__(self) -> Tails:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _watch_samples(self) -> None:
        with open_topic(self.loop.samples) as topic:
            tail = Tail(topic)
            while not self._over.is_set():
                found, now = tail.read(wait_s=0.02), time.time()
                self.events += sum(bool(record.key) for _, record in found)
                self.samples |= {id: (offset, now) for id, _, offset in corrections(found) if id.startswith("probe")}

    def _watch_chain(self) -> None:
        with open_topic(self.loop.chain) as topic:
            tail = ChainTail(topic, "m")
            while not self._over.is_set():
                found, now = tail.read(wait_s=0.02), time.time()
                self.deltas += [((delta.generation, delta.to), delta.learnt("samples")[0], now) for delta in found]

    def wait_for_deltas(self) -> None:
        ends = time.monotonic() + START_S
        while not self.deltas:
            if time.monotonic() > ends:
                raise SystemExit(f"error: nothing was published within {START_S:.0f} s: {self.loop.trainer.said()}")
            time.sleep(0.05)

    def covering(self, id: str) -> tuple[tuple[int, int], float] | None:
        """The first delta that has learnt from a click's sample, and when it was there; None before that."""
        offset = self.samples.get(id, (None, 0.0))[0]
        if offset is None:
            return None
        at = bisect_right(self.deltas, offset, key=lambda delta: delta[1])
        return (self.deltas[at][0], self.deltas[at][2]) if at < len(self.deltas) else None


def probe(feedback: Topic, tails: Tails, asker: Asker, number: str) -> Probe:
    """Show, click, and ask until an answer covers the click; then for the user's weight."""
    user, stranger = f"probe-{number}", f"stranger-{number}"
    shown = asker.ask([(user, None)], user)
    p = shown.scores[0]
    # The impression weighs 1 - p^2 and the click 1 + p (fake-negative weighting): two steps of plain gradient.
    known = RATE * ((1 + p) * (1 - p) - (1 - p * p) * p)
    time.sleep(0.02)
    at_ms = int(time.time() * 1000)
    click(feedback, [(f"{shown.id}/0", at_ms)])
    found = Probe(f"{shown.id}/0", known, at_ms / 1000, time.time())
    while time.time() - found.clicked < PATIENCE_S:
        reply = asker.ask([("anyone", None)])
        covering = tails.covering(found.id)
        if covering is None or reply.at < covering[0]:
            time.sleep(ASK_EVERY_S)
            continue
        found.served = reply.time
        # What is asked for is shown, and so learnt from too: each of the two is asked for once.
        one, other = (np.log(score / (1 - score)) for score in asker.ask([(user, None), (stranger, None)]).scores)
        found.weight = float(one - other)
        return found
    raise SystemExit(f"error: the click of {found.id} was not served within {PATIENCE_S:.0f} s")


def judged(found: Probe, tails: Tails, kind: str) -> dict[str, float]:
    """Freshness and its stages, seconds. Raises SystemExit where what was served is not what was learnt."""
    joined, covering = tails.samples[found.id][1], tails.covering(found.id)
    assert covering is not None
    head, published = covering
    if kind == "lr" and abs(found.weight - found.known) > CLOSE * found.known:
        raise SystemExit(f"error: {found.id} weighs {found.weight:.5f} from {head} on, not {found.known:.5f}")
    times = (found.clicked, found.heard, joined, published, found.served)
    stages = {name: max(0.0, after - before) for name, before, after in zip(STAGES, times, times[1:], strict=False)}
    return {"freshness": found.served - found.clicked, **stages}


def visit(port: int, feedback: str, over: Any) -> None:
    visitors = Visitors(port, feedback, EVENTS_A_SECOND / (1 + CLICKS))
    visitors.start()
    over.wait()
    visitors.stop()


def slices(loop: Loop, rounds: int, seconds: float) -> tuple[list[list[dict[str, float]]], float]:
    """Probes of each slice of time, and the events a second that the join put out meanwhile."""
    spawn = multiprocessing.get_context("spawn")
    over = spawn.Event()
    visitors = spawn.Process(target=visit, args=(loop.port, loop.feedback, over))
    made: list[tuple[float, Probe]] = []
    with Tails(loop) as tails:
        visitors.start()
        tails.wait_for_deltas()
        time.sleep(WARM_S)
        began, events = time.time(), tails.events
        ends = began + rounds * seconds

        def work(name: int) -> None:
            asker, turn = Asker(loop.port), 0
            with open_topic(loop.feedback) as feedback:
                while time.time() < ends:
                    turn += 1
                    made.append((time.time(), probe(feedback, tails, asker, f"{name}-{turn}")))
                    time.sleep(0.1)
            asker.close()

        threads = [threading.Thread(target=work, args=(name,)) for name in range(PROBERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = (tails.events - events) / (time.time() - began)
        over.set()
        visitors.join(60)
        found: list[list[dict[str, float]]] = [[] for _ in range(rounds)]
        for when, each in made:
            found[min(rounds - 1, int((when - began) / seconds))].append(judged(each, tails, loop.kind))
    return found, rate


def cases(found: list[dict[str, float]]) -> dict[str, float]:
    served = [each["freshness"] for each in found]
    told = {f"p{share}": float(np.percentile(served, share)) for share in (50, 95, 99)}
    return {**told, **{f"{name}_p50": statistics.median(each[name] for each in found) for name in STAGES}}


def measured(
    folder: Path, name: str, kind: str, broker: Broker | None, rounds: int, seconds: float
) -> dict[str, list[float]]:
    base = f"log:{folder}" if broker is None else broker.address
    with Loop(folder, kind, base, Pace(host_ticks_ms=50, feedback_ticks="50ms", commit="100ms")) as loop:
        found, rate = slices(loop, rounds, seconds)
    told: dict[str, list[float]] = {}
    for each in found:
        for case, value in cases(each).items():
            told.setdefault(f"{name}_{case}", []).append(value)
    told[f"{name}_samples_per_s"] = [rate] * rounds
    count = sum(map(len, found))
    harness.say(f"{name}: {count} probes at {rate:,.0f} samples/s, p95 {max(told[f'{name}_p95']):.2f} s at the worst")
    return told


def main() -> None:
    options = harness.arguments(__doc__)
    seconds = 5.0 if options.quick else 20.0
    what: dict[str, tuple[str, Callable[[Path], Broker] | None]] = {
        "log": ("lr", None), "redis": ("lr", Redis), "kafka": ("lr", Kafka), "deep": ("deep", None),
    }  # fmt: skip
    ours: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-freshness-", dir=os.environ.get("TMPDIR")) as scratch:
        for name, (kind, make) in what.items():
            broker = make(Path(scratch) / f"{name}-broker") if make else None
            if broker is not None:
                broker.start()
            try:
                ours |= measured(Path(scratch) / name, name, kind, broker, options.rounds, seconds)
            finally:
                if broker is not None:
                    broker.kill()
    times = [case for case in ours if not case.endswith("per_s")]
    found = harness.document("freshness", "s", {"ours": ours}, {}, times, goal={"p95": 2.0})
    harness.finish(found, options)


if __name__ == "__main__":
    main()
