"""The loop: samples in order, one step a batch, cuts and deltas between them; every sample acts once.

A thread reads, maps and encodes; this one learns. Positions are of what was learnt from, never of what was read.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from penstock.data.prometheus import MetricsPort
from penstock.operators.places import is_name
from penstock.registry.generations import Lease
from penstock.registry.registry import Registry
from penstock.streams import Topic, open_topic
from penstock.training.bundle import Bundle, load, place_of
from penstock.training.deep.batches import join
from penstock.training.deep.reading import Prefetched
from penstock.training.live import history, settings
from penstock.training.live.beginning import begun_with, note_start
from penstock.training.live.cuts import BEGIN, LoopCuts, State
from penstock.training.live.drift import Drift
from penstock.training.live.faults import LiveError, told
from penstock.training.live.gates import Gate
from penstock.training.live.learners import learner as learner_of
from penstock.training.live.outgoing import SAMPLES, Outgoing, Parts
from penstock.training.live.places import Place
from penstock.training.live.quality import Quality
from penstock.training.live.records import Records, first_place
from penstock.training.live.samples import Chunk, Mapper, Thinning
from penstock.training.live.telling import Alerts
from penstock.training.live.watch import Watch
from penstock.training.streaming_metrics import StreamingMetrics

HISTORY = "history"
#: Chunks that wait, encoded, for the learner.
AHEAD = 4
#: How long the reader waits for records before it says that there are none.
HEARTBEAT_S = 0.02
_log = logging.getLogger("penstock.online")


class Loop:
    """One run of a settings file. `run` ends when `stop` is called (SIGTERM, SIGINT), or an input ends in an error."""

    def __init__(self, file: settings.File, *, begin: str = "", take_over: bool = False) -> None:
        self.file, self.document = file, file.document
        self._begin, self._take_over = begin, take_over
        self._stopping = threading.Event()
        self.state = State()
        self._pending: list[tuple[str, Chunk]] = []
        self._lost: list[tuple[int, int, int]] = []
        self._waiting = 0
        self._waited_since = 0.0
        self._cut_at = time.monotonic()
        self._cut_of = -1
        self.metrics_address = ""

    def stop(self) -> None:
        """End soon: what is under way is learnt, a cut is written."""
        self._stopping.set()

    def run(self) -> Mapping[str, Any]:
        """Train until told to stop; returns what was done.

        Raises `LeaseHeld`, `Superseded`, what inputs, cuts and topics raise, and `LoopError` (LIVE013) for a disk.
        """
        document = self.document
        with ExitStack() as stack:
            stack.enter_context(told())
            port = stack.enter_context(MetricsPort(document.watch.listen)) if document.watch.listen else None
            registry = stack.enter_context(Registry())
            cuts = self.file.at(document.checkpoints.folder)
            start = begun_with(cuts, self._start(), registry)
            bundle, folder = load(start), place_of(start)
            self.learner = learner_of(bundle, folder, document.train, anew=document.model.anew)
            stack.callback(self.learner.close)
            self.lease = stack.enter_context(Lease(registry.database, document.model.writes, take_over=self._take_over))
            alerts = stack.enter_context(Alerts(document.model.writes, document.watch.webhook))
            topic = stack.enter_context(open_topic(self.file.address(document.samples.topic)))
            self.cuts = LoopCuts(cuts, self.lease, self.learner)
            self._resume(bundle, start, topic)
            note_start(cuts, self._start(), start)
            self.cuts.begin()
            parts = Parts(registry, self.lease, start, bundle, self.learner, self.cuts, self.gate, self.state)
            self.watch = Watch(document, parts, self.quality, alerts)
            self.outgoing = Outgoing(self.file, parts, save=lambda: self._save(), judge=self.watch.judge)
            self.outgoing.begin(stack, folder)
            self.watch.outgoing = self.outgoing
            if port is not None:
                port.serve(self.watch.prometheus)
                self.metrics_address = port.address
                _log.info("metrics on http://%s/metrics", port.address)
            self.mapper = self._mapper(bundle)
            with Prefetched(lambda: self._chunks(topic), AHEAD) as chunks:
                self._learn_from(iter(chunks))
            self.outgoing.publish(whole=True)
            self._save()
            _log.info("stopped after %s samples; a checkpoint is written", f"{self.state.samples:,}")
            return self.watch.summary()

    # --- the beginning ---

    def _start(self) -> str:
        start = self.document.model.start
        return start if is_name(start) else str(self.file.at(start))

    def _resume(self, bundle: Bundle, start: str, topic: Topic) -> None:
        """From the newest cut, or from the model it begins with."""
        document = self.document
        sections = self.cuts.resume()
        half_life = document.gates.half_life
        self.gate = Gate(document.gates)
        if sections is not None:
            if self._begin:
                said = f"{self.cuts.folder} has checkpoints, which say where to go on"
                raise LiveError(said, "leave --from out, or name another folder for checkpoints", "LIVE006")
            self.state = State.of(sections, self.learner)
            self.quality = Quality.restore(sections)
            self.gate.restore(self.state.gate)
            skip_to(self.state, sections)
            _log.info("going on after %s samples, from a checkpoint", f"{self.state.samples:,}")
        else:
            self.learner.begin()
            encoder = bundle.encoder
            drift = Drift((encoder.field_names, encoder.number_names), document.drift.reference, half_life)
            self.quality = Quality(StreamingMetrics(half_life=half_life), drift)
            begin = settings.begin(self._begin or document.samples.from_)
            self.state.places = {SAMPLES: first_place(topic, begin), HISTORY: Place({0: 0})}
            _log.info("beginning with %s", start)

    def _mapper(self, bundle: Bundle) -> Mapper:
        document = self.document
        given = document.samples.quarantine
        lag = document.lag
        return Mapper(
            bundle, self.learner.encoder, self.learner.means, self.learner.scales, types=self.state.types,
            threads=document.train.threads or os.cpu_count() or 1,
            quarantine=self.file.at(given) if given else None,
            thinning=Thinning(lag.most_s, lag.keep) if lag.policy == "sample" else None,
        )  # fmt: skip

    def _chunks(self, topic: Topic) -> Iterator[tuple[str, Chunk | None]]:
        """Input and samples, in a thread of its own; None where none came in time. Never ends by itself."""
        if self.document.history is not None:
            pattern = str(self.file.at(self.document.history.path))
            for chunk in history.chunks(
                self.document.history, pattern, self.mapper, self.state.places[HISTORY].next[0]
            ):
                yield HISTORY, chunk
        train = self.document.train
        idle_s = None if train.deterministic else self.document.samples.idle_s
        records = Records(topic, self.state.places[SAMPLES], wait_s=HEARTBEAT_S, idle_s=idle_s)
        self._lost = records.lost
        for marks, values in records.parts():
            yield SAMPLES, self.mapper.chunk(marks, values, int(time.time() * 1000)) if len(marks) else None

    # --- the loop ---

    def _learn_from(self, chunks: Iterator[tuple[str, Chunk | None]]) -> None:
        for name, chunk in chunks:
            if chunk is not None:
                self._take(name, chunk)
            while self._ready():
                self._learn()
                self._between()
                if self._stopping.is_set():
                    return
            self._between()
            if self._stopping.is_set():
                return

    def _take(self, name: str, chunk: Chunk) -> None:
        if not self._waiting:
            self._waited_since = time.monotonic()
        self._pending.append((name, chunk))
        self._waiting += chunk.rows.count
        self._pass_over()

    def _pass_over(self) -> None:
        """Records before the next sample are consumed: there is nothing to learn from them."""
        while self._pending and not self._pending[0][1].rows.count:
            name, chunk = self._pending.pop(0)
            self.state.places[name].advance(chunk.records)

    def _count_lost(self) -> None:
        """Gaps in the topic count once a cut would lie behind them: before that the next run meets them again."""
        place = self.state.places[SAMPLES]
        for gap in [gap for gap in self._lost if place.next.get(gap[0], 0) > gap[2]]:
            self._lost.remove(gap)
            self.state.gaps += gap[2] - gap[1]
            said = f"{gap[2] - gap[1]:,} records of partition {gap[0]} could not be read any more; they are left out"
            self.watch.alerts.raise_("lost", said, records=gap[2] - gap[1])

    def _ready(self) -> bool:
        """Whether a batch is to be learnt from now: a full one, or one that waited long enough."""
        train = self.document.train
        if self._waiting >= train.batch:
            return True
        if train.deterministic or not self._waiting:
            return False
        return time.monotonic() - self._waited_since >= train.wait_ms / 1000

    def _learn(self) -> None:
        """One step on the next batch; what it came from is consumed then."""
        batch, wanted = [], self.document.train.batch
        while self._pending and wanted:
            name, chunk = self._pending.pop(0)
            if chunk.rows.count > wanted:
                chunk, rest = chunk.split(wanted)
                self._pending.insert(0, (name, rest))
            batch.append((name, chunk))
            wanted -= chunk.rows.count
        rows = join([chunk.rows for _, chunk in batch if chunk.rows.count])
        impressions = np.concatenate([chunk.impressions for _, chunk in batch])
        scores = self.learner.learn(rows)
        self.quality.update(rows, scores, impressions)
        for name, chunk in batch:
            self.state.places[name].advance(chunk.records)
        self._waiting -= rows.count
        self._waited_since = time.monotonic()
        self._pass_over()
        self._count_lost()
        self.state.samples += rows.count
        self.watch.learnt(max(int(chunk.emit_ms[-1]) for _, chunk in batch if chunk.rows.count))

    def _between(self) -> None:
        """What is due between two batches."""
        now, document = time.monotonic(), self.document
        self.lease.check()
        if self.cuts.go_on():
            self.watch.whole_at = now
        if now - self._cut_at >= document.checkpoints.every_s and self._consumed() != self._cut_of:
            self._cut_at = now
            self._cut()
        self.outgoing.between(now)
        if self.watch.due(now):
            self.watch.tell(now, idle=not self._waiting)

    # --- cuts ---

    def _sections(self) -> dict[str, bytes]:
        self.state.gate = self.gate.document()
        self.outgoing.remember()
        self.state.types = dict(self.mapper.types)
        own = self.state.sections(self.lease.generation, self.learner)
        return {**own, **self.quality.sections()}

    def _cut(self) -> None:
        """Begin a cut. What it holds is published before, so that a recovery has nothing else to say."""
        self.outgoing.publish()
        self._cut_of = self._consumed()
        self.cuts.prepare(self._sections())

    def _consumed(self) -> int:
        """Records of all inputs, whatever became of them."""
        return sum(sum(place.counts.values()) for place in self.state.places.values())

    def _save(self) -> None:
        """A cut of where it is now, whole when this returns."""
        self._cut()
        self.cuts.finish()
        self._cut_at = self.watch.whole_at = time.monotonic()


def skip_to(state: State, sections: Mapping[str, bytes]) -> None:
    """Where a rollback left samples out: go on where it says, and count what lies between."""
    place = state.places[SAMPLES]
    for partition, offset in json.loads(sections.get(BEGIN, b"{}")).get("skip_to", {}).items():
        at = place.next.get(int(partition), 0)
        state.gaps += max(0, offset - at)
        place.next[int(partition)] = max(offset, at)


def stopped_by_signals(loop: Loop) -> None:
    """SIGTERM and SIGINT end the loop after a last cut."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
