"""What leaves a loop while its gate is open: deltas of the chain, and whole versions in the registry."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from penstock.operators.places import is_name
from penstock.registry.bundles import digest_of_folder
from penstock.registry.chain import has_begun
from penstock.registry.generations import Lease
from penstock.registry.registry import Registry
from penstock.streams import Unreachable, open_topic
from penstock.training.bundle import Bundle
from penstock.training.live import settings, switching
from penstock.training.live.bases import Bases, now_ms
from penstock.training.live.beginning import hold
from penstock.training.live.cuts import LoopCuts, State
from penstock.training.live.gates import Gate
from penstock.training.live.learners import Learner
from penstock.training.live.publishing import Head, Publishing

SAMPLES = "samples"
HOLD_EVERY_S = 86_400.0
_log = logging.getLogger("penstock.online")


@dataclass(frozen=True)
class Parts:
    """Of the loop: where it is, what learns, and who may write. `start`: what it began with, and its `bundle`."""

    registry: Registry
    lease: Lease
    start: str
    bundle: Bundle
    learner: Learner
    cuts: LoopCuts
    gate: Gate
    state: State


class Outgoing:
    """Publishes and makes versions when they are due. `save`: a whole cut of now; `judge`: lets the gate see."""

    def __init__(
        self, file: settings.File, parts: Parts, *, save: Callable[[], None], judge: Callable[[], None]
    ) -> None:
        self.parts, self._save, self._judge = parts, save, judge
        document = file.document
        self.made = document.bases or (settings.Bases() if document.publish else None)
        self.bases = Bases(parts.cuts.folder, self.made.keep) if self.made else None
        self.publishing: Publishing | None = None
        self._file = file
        self._base_at, self._base_of = time.monotonic(), 0
        self._held_at = 0.0

    def begin(self, stack: ExitStack, folder: Path) -> None:
        """Open the chain and begin its generation, from the cut or from the bundle in `folder`."""
        document, parts = self._file.document, self.parts
        self._hold()
        wanted = document.publish
        if wanted is None:
            return
        topic = stack.enter_context(open_topic(self._file.address(wanted.topic)))
        self.publishing = Publishing(wanted, topic, parts.lease, parts.learner, parts.bundle.fingerprint)
        if parts.state.samples:
            self.publishing.recover(parts.state.chain, self._head())
        elif not document.model.anew and not has_begun(topic, parts.lease.model):
            # Else hosts may have got deltas of a trainer that left no cut behind: only a base takes those back.
            self.publishing.begin(digest_of_folder(folder))

    def between(self, now: float) -> None:
        """What is due between two batches; `now`: monotonic seconds. A chain's topic that is away is tried again."""
        try:
            self._due(now)
        except Unreachable as error:
            self._tell_away(error)

    def _due(self, now: float) -> None:
        gate = self.parts.gate
        if self.publishing is not None and self.publishing.due(now):
            self._judge()
            if self.publishing.publisher is None and gate.open:
                self._add_base()
            self._publish()
        new = self.parts.state.samples != self._base_of and gate.open
        if self.made is not None and new and now - self._base_at >= self.made.every_s:
            self._add_base()
        if now - self._held_at >= HOLD_EVERY_S:
            self._hold()

    def publish(self, *, whole: bool = False) -> None:
        """What has changed goes out, where there is a chain and its gate is open. `whole`: dense weights too.

        Where the topic is away nothing is lost: the next delta has what this one would have had.
        """
        try:
            self._publish(whole=whole)
        except Unreachable as error:
            self._tell_away(error)

    def _publish(self, *, whole: bool = False) -> None:
        if self.publishing is not None and self.publishing.publisher is not None and self.parts.gate.open:
            self.publishing.publish(time.monotonic(), self._head(), whole=whole)

    def _tell_away(self, error: Unreachable) -> None:
        _log.warning("nothing is published: %s; trying again", error.message)

    def remember(self) -> None:
        """Let the state say where the chain is: a cut is about to be made."""
        if self.publishing is not None:
            self.parts.state.chain = self.publishing.at(self.parts.state.samples)

    def prove(self) -> None:
        """Bases that one effective window of green samples followed are good; the newest of them gets the alias."""
        if self.bases is None or self.made is None:
            return
        parts = self.parts
        for base in self.bases.all():
            if not base.good and parts.gate.proved(base.samples):
                self.bases.proved(base)
                _log.info("%s has proved good", base.version)
                if self.made.alias:
                    switching.along(parts.registry, base.version, self.made.alias, parts.lease)

    def _head(self) -> Head:
        places = self.parts.state.places
        positions = {name: dict(place.next) for name, place in places.items()}
        return Head(self.parts.state.samples, positions, places[SAMPLES].time_ms)

    def _add_base(self) -> None:
        """A version of what is learnt now, with the cut of this very moment; what is too old goes."""
        assert self.bases is not None
        parts = self.parts
        self._publish(whole=True)
        self._save()
        facts = {
            "offset": parts.state.chain.offset, "samples": parts.state.samples, "time_ms": now_ms(),
            "chain": (parts.state.chain.generation, parts.state.chain.sequence),
            "positions": {str(partition): offset for partition, offset in parts.state.places[SAMPLES].next.items()},
        }  # fmt: skip
        name = self._file.document.model.name
        chain = self.publishing.place() if self.publishing is not None else {}
        version = self.bases.add(
            parts.registry, name, parts.lease, parts.bundle, parts.learner, parts.cuts.own, facts, chain
        )
        if self.publishing is not None:
            if self.publishing.publisher is None:
                self.publishing.begin(version.digest)
                self._publish(whole=True)
            self.publishing.announce(version.uri, version.digest)
        self._base_at, self._base_of = time.monotonic(), parts.state.samples
        oldest = self.bases.forget()[0]
        self._hold()
        if self.publishing is not None and self.publishing.publisher is not None and oldest.offset >= 0:
            self.publishing.publisher.trim(oldest.offset + 1)

    def _hold(self) -> None:
        """What it began with and what it can go back to stay in the registry."""
        start = [self.parts.start] if is_name(self.parts.start) else []
        bases = self.bases.all() if self.bases is not None else []
        hold(self.parts.registry, self.parts.lease, [*start, *(base.version for base in bases)])
        self._held_at = time.monotonic()
