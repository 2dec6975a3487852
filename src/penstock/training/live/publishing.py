"""What is learnt goes out as it is learnt: changed rows every `every_ms`, dense weights every `dense_every_ms`.

Nothing goes out while the gate is shut: the rows remember what has changed, and the next delta has all of it. A
generation begins from the base it was started with, from the cut it was recovered at (`restore`), or, where what a cut
holds was never published, from a base of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.registry.chain import ChainError, ChainHead, Published, Publisher
from penstock.registry.generations import Lease
from penstock.streams import Topic
from penstock.training.live.cuts import Chain
from penstock.training.live.learners import Learner
from penstock.training.live.settings import Publish


@dataclass(frozen=True)
class Head:
    """Where the trainer is when a delta is made: samples learnt from, positions by input, the newest event's time."""

    samples: int
    positions: Mapping[str, Mapping[int, int]]
    event_time_ms: int


class Publishing:
    """The timer, and what went out. `publisher`: None until the generation has a base to begin from."""

    def __init__(self, settings: Publish, topic: Topic, lease: Lease, learner: Learner, plan: str) -> None:
        self.settings, self.topic, self.lease, self.learner, self.plan = settings, topic, lease, learner, plan
        self.publisher: Publisher | None = None
        self.chain = Chain()
        self.rows = self.bytes = 0
        self._next = self._next_dense = 0.0
        self._samples = self._dense_samples = -1

    # --- how a generation begins ---

    def begin(self, base: str) -> None:
        """From a base (its digest) that the tables hold now."""
        self.publisher = Publisher(
            self.topic, self.lease.model, self.lease.generation, plan=self.plan, base=base, values=self.settings.values
        )
        self.publisher.track(self.learner.tracked)
        self.chain = Chain(self.lease.generation, 0, -1, base)

    def recover(self, chain: Chain, head: Head) -> bool:
        """From the cut that the tables hold now, which was at `chain`: every key that was published since goes out as
        it was then, or as gone, before anything else. False where that cannot be: a base must come first."""
        if not chain.generation or chain.unpublished:
            return False
        self.begin(chain.base)
        assert self.publisher is not None
        self.lease.check()
        after = ChainHead(self.lease.model, chain.generation, chain.sequence)
        offset = chain.offset + 1 if chain.offset >= 0 else None
        try:
            done = self.publisher.restore(
                self.learner.tracked, after=after, offset=offset, dense=self.learner.dense(), positions=head.positions,
                event_time_ms=head.event_time_ms,
            )  # fmt: skip
        except ChainError as error:
            if error.code != "CHAIN010":
                raise
            self.publisher = None
            return False
        self._note(done, head.samples)
        self._dense_samples = head.samples
        return True

    # --- deltas ---

    def due(self, now: float) -> bool:
        """Whether it is time to look; `now`: monotonic seconds. Asked again after one interval."""
        if now < self._next:
            return False
        self._next = now + self.settings.every_ms / 1000
        return True

    def publish(self, now: float, head: Head, *, whole: bool = False) -> None:
        """Send what has changed, if anything has. `whole`: dense weights too, whatever their turn.

        Raises `Superseded` (LIVE011) before anything is written where a later generation has begun.
        """
        assert self.publisher is not None
        turn = whole or self.learner.dense_always or now >= self._next_dense
        dense_due = turn and head.samples != self._dense_samples
        if head.samples == self._samples and not dense_due:
            return
        dense = self.learner.dense() if dense_due else None
        self.lease.check()
        done = self.publisher.publish(
            self.learner.tracked, dense=dense, positions=head.positions, event_time_ms=head.event_time_ms
        )
        self._note(done, head.samples)
        if dense_due:
            self._next_dense, self._dense_samples = now + self.settings.dense_every_ms / 1000, head.samples

    def at(self, samples: int) -> Chain:
        """The chain as a cut after `samples` is to remember it."""
        unpublished = self.publisher is None or (samples != self._samples and samples > 0)
        return Chain(self.chain.generation, self.chain.sequence, self.chain.offset, self.chain.base, unpublished)

    def place(self) -> dict[str, Any]:
        """What the manifest of a bundle says that holds all that was published so far (`chain`); {} of a bundle that a
        generation begins from: its own digest says that."""
        at = self.chain
        if self.publisher is None or not at.sequence:
            return {}
        mark = {"generation": at.generation, "sequence": at.sequence}
        return {"name": self.lease.model, **mark, "base": at.base, "offset": at.offset}

    def announce(self, address: str, digest: str) -> None:
        """Tell hosts of a base that holds all that was published so far."""
        assert self.publisher is not None
        self.publisher.announce(address, digest=digest, sequence=self.chain.sequence, offset=self.chain.offset + 1)

    def _note(self, done: Published, samples: int) -> None:
        self.chain = Chain(self.lease.generation, done.sequence, done.last, self.chain.base)
        self.rows += done.rows + done.gone
        self.bytes += done.bytes
        self._samples = samples

    def counters(self) -> dict[str, float | None]:
        sequence = self.chain.sequence
        return {"published_rows_total": self.rows, "published_bytes_total": self.bytes, "sequence": sequence}

    def summary(self) -> dict[str, Any]:
        return {"sequence": self.chain.sequence, "rows": self.rows, "bytes": self.bytes}
