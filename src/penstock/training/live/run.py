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
from pathlib import Path
from typing import Any

import numpy as np

from penstock.registry.bundles import digest_of_folder
from penstock.registry.generations import Lease
from penstock.registry.registry import Registry
from penstock.streams import Topic, open_topic
from penstock.training.bundle import Bundle, load, place_of
from penstock.training.deep.batches import join
from penstock.training.deep.reading import Prefetched
from penstock.training.live import history, settings
from penstock.training.live.bases import Bases, now_ms
from penstock.training.live.cuts import BEGIN, LoopCuts, State
from penstock.training.live.drift import Drift
from penstock.training.live.faults import LiveError
from penstock.training.live.gates import Gate
from penstock.training.live.learners import learner as learner_of
from penstock.training.live.places import Place
from penstock.training.live.publishing import Head, Publishing
from penstock.training.live.quality import Quality
from penstock.training.live.records import Records, first_place
from penstock.training.live.samples import Chunk, Mapper, Thinning
from penstock.training.live.telling import Alerts, MetricsPort, prometheus
from penstock.training.streaming_metrics import StreamingMetrics

SAMPLES, HISTORY = "samples", "history"
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
        self._waiting = 0
        self._waited_since = 0.0
        self._rate, self._told_at, self._told_samples = 0.0, time.monotonic(), 0
        self._lag_s, self._late = 0.0, False
        self._cut_at = self._whole_at = time.monotonic()
        self._cut_of = -1
        self._base_of = 0
        self._drifting: set[str] = set()
        self.metrics_address = ""

    def stop(self) -> None:
        """End soon: what is under way is learnt, a cut is written."""
        self._stopping.set()

    def run(self) -> Mapping[str, Any]:
        """Train until told to stop; returns what was done.

        Raises `LeaseHeld`, `Superseded`, and what inputs, cuts and topics raise.
        """
        document = self.document
        with ExitStack() as stack:
            location = self._location()
            bundle, folder = load(location), place_of(location)
            self.learner = learner_of(bundle, folder, document.train, anew=document.model.anew)
            stack.callback(self.learner.close)
            registry = stack.enter_context(Registry())
            self.lease = stack.enter_context(Lease(registry.database, document.model.name, take_over=self._take_over))
            topic = stack.enter_context(open_topic(self.file.address(document.samples.topic)))
            self.cuts = LoopCuts(self.file.at(document.checkpoints.folder), self.lease, self.learner)
            self._resume(bundle, topic)
            self.cuts.begin()
            self.alerts = Alerts(document.model.name, document.watch.webhook)
            stack.callback(self.alerts.close)
            self.registry, self.bundle = registry, bundle
            self.publishing = self._publishing(stack, folder)
            self.made = document.bases or (settings.Bases() if document.publish else None)
            self.bases = Bases(self.cuts.folder, self.made.keep) if self.made else None
            self._base_at = time.monotonic()
            if document.watch.listen:
                port = MetricsPort(document.watch.listen, self.prometheus)
                stack.callback(port.close)
                self.metrics_address = port.address
                _log.info("metrics on http://%s/metrics", port.address)
            self.mapper = self._mapper(bundle)
            with Prefetched(lambda: self._chunks(topic), AHEAD) as chunks:
                self._learn_from(iter(chunks))
            self._publish(whole=True)
            self._save()
            _log.info("stopped after %s samples; a checkpoint is written", f"{self.state.samples:,}")
            return self.summary()

    # --- the beginning ---

    def _location(self) -> str:
        start = self.document.model.start
        return start if start.startswith("models:") else str(self.file.at(start))

    def _resume(self, bundle: Bundle, topic: Topic) -> None:
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
            _log.info("beginning with %s", self._location())
        self._told_samples = self.state.samples

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
        self.state.samples += rows.count
        emitted = max(int(chunk.emit_ms[-1]) for _, chunk in batch if chunk.rows.count)
        self._lag_s = max(0.0, time.time() - emitted / 1000) if emitted else 0.0

    def _between(self) -> None:
        """What is due between two batches."""
        now, document = time.monotonic(), self.document
        self.lease.check()
        if self.cuts.go_on():
            self._whole_at = now
        if now - self._cut_at >= document.checkpoints.every_s and self._consumed() != self._cut_of:
            self._cut_at = now
            self._cut()
        if self.publishing is not None and self.publishing.due(now):
            self.judge()
            if self.publishing.publisher is None and self.gate.open:
                self._add_base()
            self._publish()
        new = self.state.samples != self._base_of and self.gate.open
        if self.made is not None and new and now - self._base_at >= self.made.every_s:
            self._add_base()
        if now - self._told_at >= document.watch.tell_s:
            self._tell(now)

    def judge(self) -> None:
        """Let the gate see the metrics as they are."""
        if self.gate.judge(self.quality.values(), self.state.samples):
            kind = "gate_open" if self.gate.open else "gate_shut"
            said = self.gate.why or "all metrics are in their bands again; publishing goes on"
            self.alerts.raise_(kind, said, samples=self.state.samples)

    # --- what goes out ---

    def _publishing(self, stack: ExitStack, folder: Path) -> Publishing | None:
        wanted = self.document.publish
        if wanted is None:
            return None
        topic = stack.enter_context(open_topic(self.file.address(wanted.topic)))
        publishing = Publishing(wanted, topic, self.lease, self.learner, self.bundle.fingerprint)
        if self.state.samples:
            publishing.recover(self.state.chain, self._head())
        elif not self.document.model.anew:
            publishing.begin(digest_of_folder(folder))
        return publishing

    def _head(self) -> Head:
        positions = {name: dict(place.next) for name, place in self.state.places.items()}
        return Head(self.state.samples, positions, self.state.places[SAMPLES].time_ms)

    def _publish(self, *, whole: bool = False) -> None:
        """What has changed goes out, where there is a chain and its gate is open."""
        if self.publishing is not None and self.publishing.publisher is not None and self.gate.open:
            self.publishing.publish(time.monotonic(), self._head(), whole=whole)

    def _add_base(self) -> None:
        """A version of what is learnt now, with the cut of this very moment; what is too old goes."""
        assert self.bases is not None
        self._publish(whole=True)
        self._save()
        place = self.state.places[SAMPLES]
        facts = {
            "offset": self.state.chain.offset, "samples": self.state.samples, "time_ms": now_ms(),
            "chain": (self.state.chain.generation, self.state.chain.sequence),
            "positions": {str(partition): offset for partition, offset in place.next.items()},
        }  # fmt: skip
        version = self.bases.add(self.registry, self.lease, self.bundle, self.learner, self.cuts.own, facts)
        if self.publishing is not None:
            if self.publishing.publisher is None:
                self.publishing.begin(version.digest)
                self._publish(whole=True)
            self.publishing.announce(version.uri, version.digest)
        self._base_at, self._base_of = time.monotonic(), self.state.samples
        oldest = self.bases.forget()[0]
        if self.publishing is not None and self.publishing.publisher is not None and oldest.offset >= 0:
            self.publishing.publisher.trim(oldest.offset + 1)

    def _prove(self) -> None:
        """Bases that one effective window of green samples followed are good; the newest of them gets the alias."""
        if self.bases is None or self.made is None:
            return
        alias = self.made.alias
        for base in self.bases.all():
            if not base.good and self.gate.proved(base.samples):
                self.bases.proved(base)
                _log.info("%s has proved good", base.version)
                if alias:
                    self.registry.alias(base.version, alias, "proved good online", self.lease.generation)

    # --- cuts ---

    def _sections(self) -> dict[str, bytes]:
        self.state.gate = self.gate.document()
        if self.publishing is not None:
            self.state.chain = self.publishing.at(self.state.samples)
        self.state.types = dict(self.mapper.types)
        own = self.state.sections(self.lease.generation, self.learner)
        return {**own, **self.quality.sections()}

    def _cut(self) -> None:
        """Begin a cut. What it holds is published before, so that a recovery has nothing else to say."""
        self._publish()
        self._cut_of = self._consumed()
        self.cuts.prepare(self._sections())

    def _consumed(self) -> int:
        """Records of all inputs, whatever became of them."""
        return sum(sum(place.counts.values()) for place in self.state.places.values())

    def _save(self) -> None:
        """A cut of where it is now, whole when this returns."""
        self._cut()
        self.cuts.finish()
        self._cut_at = self._whole_at = time.monotonic()

    # --- telling ---

    def _tell(self, now: float) -> None:
        seconds = now - self._told_at
        self._rate = (self.state.samples - self._told_samples) / max(seconds, 1e-9)
        self._told_at, self._told_samples = now, self.state.samples
        if not self._waiting and not self._rate:
            self._lag_s = 0.0
        self.judge()
        self._prove()
        self._look_at_drift()
        found = self.quality.values()
        shown = ", ".join(f"{name} {found[name]:.4f}" for name in ("decayed_auc", "calibration") if found[name])
        counts = self.state.places[SAMPLES].counts
        aside = "".join(f", {counts[name]:,} {name}" for name in ("quarantined", "skipped") if counts[name])
        state = "" if self.gate.open else f"; not published: {self.gate.why}"
        _log.info(
            "%s samples, %s a second, lag %.1f s, %s%s%s", f"{self.state.samples:,}", f"{self._rate:,.0f}", self._lag_s,
            shown or "no metrics yet", aside, state,
        )  # fmt: skip
        late = self._lag_s > self.document.lag.most_s
        if late and not self._late:
            self.alerts.raise_("lag", f"samples are {self._lag_s:.0f} s old when they are learnt from")
        self._late = late

    def _look_at_drift(self) -> None:
        limit = self.document.drift.alert
        over = {name: value for name, value in self.quality.drift.values().items() if value > limit}
        for name in over.keys() - self._drifting:
            self.alerts.raise_("drift", f"{name} is not what it was: PSI {over[name]:.2f}", of=name, psi=over[name])
        self._drifting = set(over)

    def summary(self) -> dict[str, Any]:
        """What was done so far: the command's JSON."""
        counts = self.state.places[SAMPLES].counts
        positions = {str(p): offset for p, offset in self.state.places[SAMPLES].next.items()}
        return {
            "model": self.document.model.name, "generation": self.lease.generation, "samples": self.state.samples,
            "quarantined": counts["quarantined"], "skipped": counts["skipped"], "gaps": self.state.gaps,
            "positions": positions, "rows": dict(self.learner.sizes), "metrics": self.quality.values(),
            "published": self.publishing.summary() if self.publishing else None,
        }  # fmt: skip

    def prometheus(self) -> str:
        """Asked by another thread: numbers of about now."""
        counts, found = self.state.places[SAMPLES].counts, self.quality.values()
        values: dict[str, float | None] = {
            "samples_total": self.state.samples, "skipped_total": counts["skipped"],
            "quarantined_total": counts["quarantined"], "samples_per_second": self._rate, "lag_seconds": self._lag_s,
            "auc": found["decayed_auc"], "calibration": found["calibration"], "gate_open": int(self.gate.open),
            "generation": self.lease.generation,
            "checkpoint_age_seconds": time.monotonic() - self._whole_at,
        }  # fmt: skip
        if self.publishing is not None:
            values |= self.publishing.counters()
        labelled: dict[str, Mapping[str, float]] = {
            "rows": self.learner.sizes, "drift_psi": self.quality.drift.values(), "alerts_total": self.alerts.counts
        }  # fmt: skip
        return prometheus(self.document.model.name, values, labelled)


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
