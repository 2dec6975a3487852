"""`penstock online join`: read, join, append, commit; again after whatever failed, until told to stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from penstock.data.stopping import Stopping
from penstock.streams import BeyondEnd, Fenced, StreamError, Topic, open_topic

from . import faults
from .inputs import Inputs, Partition, Refused, opened, saved
from .joiner import Joiner
from .outputs import Outputs
from .settings import JoinFile
from .state import State
from .ticks import Ticker, tick

#: Faults that time may mend: a disk that is full, a broker that is away, readers that are behind.
_PASSING = {"STRM010", "STRM011", "STRM012", "STRM015", "STRM016", "STRM017", "JOIN006"}
#: A transaction takes no more events, however soon it is committed.
_COMMIT_EVENTS = 50_000
_TICK_S, _IDLE_COMMIT_S, _TELL_S, _GROUP_S = 0.1, 1.0, 1.0, 1.0
_PAUSE_S, _STALLED_S = 1.0, 10.0
#: A session that comes to no end of what it does waits: topics are patient with brokers (`timeout`).
_SILENT_S = 10.0


class Runner:
    """One join until it is stopped."""

    def __init__(self, file: JoinFile, told: Callable[[str], None]) -> None:
        self.file, self.told = file, told
        self.stopping = Stopping()
        self.counts: Counter[str] = Counter()
        self.failures = 0
        self._status: dict[str, Any] = {"state": "starting"}
        self._doing, self._told_s = "", time.monotonic()

    @property
    def status(self) -> dict[str, Any]:
        """For whoever shows it, from other threads: a plain dict that is replaced, never changed."""
        status, silent_s = self._status, time.monotonic() - self._told_s
        if status["state"] == "joining" and silent_s > _SILENT_S:
            return {**status, "state": "waiting", "why": f"{self._doing}: no answer for {silent_s:.0f} s"}
        return status

    def run(self, drain: bool = False) -> dict[str, Any]:
        """Join until `stopping` is set; with `drain`, until the inputs have been read to their ends.

        Returns the counts since the state was new. Raises what time does not mend: `Fenced`, `BeyondEnd`,
        `AddressError`, `StateError`.
        """
        with State(self.file.state) as state:
            while not self.stopping.is_set():
                try:
                    with ExitStack() as stack:
                        self._session(state, stack, drain)
                        break
                except (StreamError, faults.StateError) as error:
                    if isinstance(error, Fenced | BeyondEnd) or error.code not in _PASSING:
                        raise
                    self.failures += 1
                    self.told(f"waiting: {error.message}")
                    self._status = {**self._status, "state": "waiting", "why": error.message}
                    self.stopping.wait(_PAUSE_S)
                finally:
                    state.abort()
        return dict(sorted(self.counts.items()))

    # --- one session: from what was committed, until something fails ---------------------------------------------

    def _session(self, state: State, stack: ExitStack, drain: bool) -> None:
        document, terms = self.file.document, self.file.terms
        topics = {
            source: stack.enter_context(open_topic(self.file.address(given.topic)))
            for source, given in (("impressions", document.impressions), ("feedback", document.feedback))
        }
        samples = stack.enter_context(open_topic(self._sample_address()))
        meta = state.begin()
        if meta is not None and meta["terms"] != terms.fingerprint:
            raise faults.other_terms(state.folder)
        kept = meta or {"inputs": {}, "outputs": None, "counts": {}, "frontier_ms": -1}
        partitions: list[Partition] = []
        for source, topic in topics.items():
            partitions += opened(source, topic, kept["inputs"].get(source), self._start)
        inputs = Inputs(partitions, terms, self.told)
        if samples.settings.transactional_id is not None:
            # The first append ends what a killed process left open and fences a live one: only then is the end known.
            tick(samples, 1)
        outputs = self._outputs(samples, kept["outputs"])
        joiner = Joiner(terms, state)
        self.counts = Counter(kept["counts"])
        if meta is None:
            state.commit(self._meta(inputs, outputs, -1))
        for source, given in (("impressions", document.impressions), ("feedback", document.feedback)):
            if given.ticks:
                stack.enter_context(Ticker(topics[source], given.ticks / 1000))
        self._loop(state, topics, inputs, outputs, joiner, kept["frontier_ms"], drain)

    def _sample_address(self) -> str:
        """On Kafka the join's appends are transactions under its name."""
        address = self.file.address(self.file.document.samples.topic)
        if not address.startswith("kafka:") or "transactional_id=" in address:
            return address
        return f"{address}{'&' if '?' in address else '?'}transactional_id=penstock-join-{self.file.document.name}"

    def _start(self, topic: Topic, partition: int) -> int:
        return topic.start(partition) if self.file.document.start == "oldest" else topic.end(partition)

    def _outputs(self, topic: Topic, positions: dict[str, int] | None) -> Outputs:
        numbers = range(topic.partitions)
        if positions is None:
            return Outputs(topic, {number: topic.end(number) for number in numbers})
        outputs = Outputs(topic, {number: positions.get(str(number), 0) for number in numbers})
        outputs.look(self.told)
        if outputs.unmatched:
            self.told(f"{outputs.unmatched} samples were appended and not committed; they are not appended again")
        return outputs

    def _loop(
        self,
        state: State,
        topics: dict[str, Topic],
        inputs: Inputs,
        outputs: Outputs,
        joiner: Joiner,
        frontier: int,
        drain: bool,
    ) -> None:
        ends = {id(p): p.topic.end(p.number) for p in inputs.partitions} if drain else {}
        commit_s = self.file.document.commit / 1000
        committed = ticked = told = moved = grouped = time.monotonic()
        events, changed = 0, False
        reading = f"reading {' and '.join(topic.name for topic in topics.values())}"
        appending = f"appending to {outputs.topic.name}"
        while True:
            stopping, self._doing = self.stopping.is_set(), reading
            came = 0 if stopping else inputs.read()
            reached = inputs.frontier_ms
            now = time.monotonic()
            if reached > frontier:
                frontier, moved = reached, now
                taken = inputs.take(frontier)
                with state.said():
                    for refused in taken.refused:
                        state.quarantine(*refused)
                    samples = joiner.join(taken.events, frontier)
                self._tell_refused(taken.refused)
                self.counts += taken.counts
                self._doing = appending
                outputs.append(samples)
                events += len(taken.events)
                changed = changed or bool(taken.events or samples or taken.refused)
            elif now - moved > _STALLED_S and came:
                self._tell_stalled(inputs)
                moved = now
            if now - ticked >= _TICK_S and frontier > 0:
                self._doing = appending
                outputs.tick(frontier)
                ticked = now
            over = stopping or (drain and all(p.read_to >= ends[id(p)] for p in inputs.partitions))
            due = now - committed >= (commit_s if changed else _IDLE_COMMIT_S)
            if over or due or events >= _COMMIT_EVENTS:
                self._doing = "committing"
                if over:
                    outputs.tick(frontier)
                self._commit(state, inputs, outputs, joiner, frontier)
                committed, events, changed = now, 0, False
                if over or now - grouped >= _GROUP_S:
                    self._tell_groups(topics, inputs)
                    grouped = now
            if over or now - told >= _TELL_S:
                facts = self._facts(state, inputs, outputs, frontier)
                self._told_s = time.monotonic()
                self._status, told = facts, now
            if over:
                return
            if not came:
                self.stopping.wait(0.005)

    def _commit(self, state: State, inputs: Inputs, outputs: Outputs, joiner: Joiner, frontier: int) -> None:
        """Samples last before the positions that say that they were made."""
        outputs.topic.sync()
        self.counts += joiner.counts
        joiner.counts.clear()
        for source, lost in inputs.lost.items():
            self.counts[f"{source}_lost"] += lost
        inputs.lost.clear()
        state.commit(self._meta(inputs, outputs, frontier))

    def _tell_groups(self, topics: dict[str, Topic], inputs: Inputs) -> None:
        """Where the join is, for those who ask the topics: lag, backpressure. Its own positions are the state's."""
        for source, topic in topics.items():
            at = {one.number: one.position for one in inputs.partitions if one.source == source}
            topic.commit(f"join-{self.file.document.name}", at)

    def _meta(self, inputs: Inputs, outputs: Outputs, frontier: int) -> dict[str, Any]:
        return {
            "frontier_ms": frontier,
            "terms": self.file.terms.fingerprint,
            "inputs": saved(inputs.partitions),
            "outputs": {str(number): offset for number, offset in outputs.positions(frontier).items()},
            "counts": dict(self.counts),
        }

    def _tell_refused(self, refused: list[Refused]) -> None:
        for one in refused[:3]:
            where = f"{one.source}, partition {one.partition}, offset {one.record.offset}"
            self.told(f"quarantined: {where}: {one.reason}")
        if len(refused) > 3:
            self.told(f"quarantined: {len(refused) - 3} more; `penstock online join FILE --quarantined` prints them")

    def _tell_stalled(self, inputs: Inputs) -> None:
        slowest = inputs.slowest()
        self.told(
            f"{slowest.topic.name}, partition {slowest.number} has said nothing for {_STALLED_S:.0f} s "
            "while others went on: samples wait for it; let its writers tick, or say ticks in the join file"
        )

    def _facts(self, state: State, inputs: Inputs, outputs: Outputs, frontier: int) -> dict[str, Any]:
        lags = {f"{one.source}/{one.number}": one.topic.end(one.number) - one.position for one in inputs.partitions}
        return {
            "state": "joining",
            "frontier_ms": frontier,
            "lags": lags,
            "clocks_ms": {f"{one.source}/{one.number}": one.read_clock.now_ms for one in inputs.partitions},
            "waiting": sum(len(one.waiting) for one in inputs.partitions),
            "skipped": outputs.skipped,
            "failures": self.failures,
            "counts": dict(self.counts),
            **state.sizes(),
        }
