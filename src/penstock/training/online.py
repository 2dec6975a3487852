"""Regressions and factorisation machines that learn as rows stream by: batches go in, a scorer comes out.

Nothing here is per row: a batch's Arrow columns go to the native trainer as they are (`native.Online`, ADR 0031).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock import native
from penstock.errors import DataError
from penstock.operators.base import RunContext
from penstock.training.faults import LabelError, LearningError
from penstock.training.inputs import Layout, is_list
from penstock.training.labels import read_labels, read_weights
from penstock.training.matrices import Encoder, keys_of
from penstock.training.metrics import metrics
from penstock.training.online_cuts import Cuts, Position
from penstock.training.online_scorer import OnlineScorer, Rates, scaled, sigmoid, to_native

Floats = npt.NDArray[np.float64]
#: Rows that the means and scales of the numbers are taken from.
MOMENT_ROWS = 10_000
TOLD_EVERY_S = 0.5


@dataclass(frozen=True)
class OnlineParameters:
    rates: Rates
    epochs: int
    batch: int
    seed: int
    threads: int
    #: Samples without a key after which it goes; 0: never.
    evict_after: int = 0
    #: Rows between cuts that a killed run goes on from; 0: none.
    checkpoint_every: int = 0


@dataclass
class Targets:
    """Labels and weights batch by batch; a fault is told with its count over the whole frame."""

    frame: Any
    label: str
    weight: str
    context: RunContext
    ones: int = 0
    rows: int = 0
    signs: set[int] = field(default_factory=set)

    def read(self, batch: pa.RecordBatch) -> tuple[Floats, Floats | None]:
        column = batch.column(self.label)
        try:
            labels = read_labels(column, self.label, both=False)
        except LabelError:
            self._whole_labels(both=False)
            raise
        if len(labels) and not pa.types.is_boolean(column.type) and not pa.types.is_null(column.type):
            lowest = int(pc.min(column).as_py())
            self.signs |= {lowest} - {1}
        if len(self.signs) > 1:
            self._whole_labels(both=False)
        self.rows += len(labels)
        self.ones += int(labels.sum())
        return labels, self._weights(batch) if self.weight else None

    def resume(self, place: Position) -> None:
        """What an earlier attempt read is known."""
        self.ones, self.rows, self.signs = place.ones, place.rows, set(place.signs)

    def tell(self, place: Position) -> None:
        place.ones, place.rows, place.signs = self.ones, self.rows, sorted(self.signs)

    def both_classes(self) -> None:
        """Raises `LabelError` where what was read is of one class."""
        if self.ones in (0, self.rows):
            self._whole_labels(both=True)

    def _weights(self, batch: pa.RecordBatch) -> Floats:
        column = batch.column(self.weight)
        try:
            return read_weights(column, self.weight)
        except LabelError:
            whole = self.context.collect(self.frame.select(self.weight))[self.weight].to_arrow()
            read_weights(whole, self.weight)
            return np.zeros(len(column))  # zeros in this batch alone are no fault

    def _whole_labels(self, *, both: bool) -> None:
        read_labels(self.context.collect(self.frame.select(self.label))[self.label].to_arrow(), self.label, both=both)


@dataclass
class Feed:
    """How batches become what the native trainer takes. `means`, `scales`: a number each, fixed by the first rows."""

    layout: Layout
    widths: tuple[int, ...] = ()
    means: Floats = field(default_factory=lambda: np.zeros(0))
    scales: Floats = field(default_factory=lambda: np.zeros(0))
    #: With fields="position": the longest list so far.
    places: int = 0

    @property
    def encoder(self) -> Encoder:
        return Encoder(self.layout, self.widths, {}, self.places)

    @staticmethod
    def fitted(layout: Layout, first: Sequence[pa.RecordBatch]) -> Feed:
        feed = Feed(layout, tuple(_width(first, name) for name in layout.vectors))
        taken, rows = [], 0
        for batch in first:
            part = batch.slice(0, MOMENT_ROWS - rows)
            rows += part.num_rows
            taken.append(feed.raw_numbers(part))
        numbers = np.concatenate(taken) if taken else np.zeros((0, 0))
        feed.means, feed.scales = moments(numbers)
        return feed

    def raw_numbers(self, batch: pa.RecordBatch) -> Floats:
        numeric = Layout(numeric=self.layout.numeric, vectors=self.layout.vectors)
        columns = batch.select(list(numeric.columns))
        return Encoder(numeric, self.widths).encode(columns).numbers.astype(np.float64)

    def numbers(self, batch: pa.RecordBatch) -> pa.Array:
        if not len(self.means):
            return pa.array([], pa.float32())
        return pa.array(scaled(self.raw_numbers(batch), self.means, self.scales).ravel())

    def slots(self, batch: pa.RecordBatch) -> list[tuple[pa.Array, pa.Array, pa.Array | None]]:
        found = []
        for name, weights in self.layout.slots:
            column = batch.column(name)
            slot = None if weights else _as_they_are(column)
            if slot is None:
                slot = to_native(keys_of(batch, name, weights))
            if self.layout.positions:
                lengths = np.diff(slot[0].to_numpy(zero_copy_only=False))
                self.places = max(self.places, int(lengths.max(initial=0)))
            found.append(slot)
        return found


def moments(numbers: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column's finite numbers; 0 and 1 where there are none."""
    finite = np.where(np.isfinite(numbers), numbers, np.nan)
    held = np.maximum((~np.isnan(finite)).sum(axis=0), 1)
    means = np.nansum(finite, axis=0) / held
    scales = np.sqrt(np.nansum((finite - means) ** 2, axis=0) / held)
    return means, np.where(scales > 0, scales, 1.0)


def _as_they_are(column: pa.Array) -> tuple[pa.Array, pa.Array, None] | None:
    """A list column's own buffers; None where nulls or other types make a copy necessary."""
    type_ = column.type
    if column.null_count or not (pa.types.is_list(type_) or pa.types.is_large_list(type_)):
        return None
    values = column.values
    if values.null_count or not (pa.types.is_int64(values.type) or pa.types.is_uint64(values.type)):
        return None
    return column.offsets, values.view(pa.uint64()), None


def _width(batches: Sequence[pa.RecordBatch], name: str) -> int:
    for batch in batches:
        column = batch.column(name)
        lengths = pc.list_value_length(column).drop_null() if is_list(column.type) else []
        if len(lengths):
            return int(lengths[0].as_py())
    return 0


@dataclass
class Stream:
    """One training run: the native trainer, how it is fed, and what is told of it."""

    parameters: OnlineParameters
    shared: bool
    feed: Feed
    trainer: native.Online
    context: RunContext
    _begun: float = 0.0
    _begun_rows: int = 0
    _told: float = 0.0

    def resume(self, cuts: Cuts) -> Position | None:
        """The newest cut, and where it was; None where there is none. Raises `ArtefactError`."""
        place = cuts.resume(self.trainer)
        if place is not None:
            self.feed.places = place.places
            self.context.progress(f"going on at row {place.row:,} of epoch {place.epoch}, from a checkpoint", place.row)
        return place

    def learn(self, batches: Iterable[pa.RecordBatch], targets: Targets, place: Position, cuts: Cuts) -> None:
        """Learn from the rows from `place.row` of its epoch on, cutting now and then."""
        if place.row == 0:
            self.trainer.begin_pass()
            cuts.begin_pass()
        targets.resume(place)
        self._begun, self._begun_rows = time.monotonic(), place.row
        for batch in cuts.parts(batches, place.row):
            labels, weights = targets.read(batch)
            sample = pa.array(weights.astype(np.float32)) if weights is not None else None
            with _explained():
                self.trainer.learn(
                    self.feed.slots(batch), self.feed.numbers(batch), pa.array(labels.astype(np.float32)), sample
                )
            # What waits for its micro-batch is read again.
            place.row, place.places = self.trainer.progress_rows(), self.feed.places
            targets.tell(place)
            cuts.go_on(self.trainer, place)
            self._tell(place.epoch)
        with _explained():
            self.trainer.finish()
        targets.both_classes()
        self._tell(place.epoch, last=True)

    def _tell(self, epoch: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._told < TOLD_EVERY_S:
            return
        self._told = now
        rows, _, loss, area = self.trainer.progress()
        rate = (rows - self._begun_rows) / max(now - self._begun, 1e-9)
        of = f"epoch {epoch} of {self.parameters.epochs}: " if self.parameters.epochs > 1 else ""
        self.context.progress(
            f"{of}{rows:,} samples, {rate:,.0f} a second, logloss {loss:.5f}, auc {area:.5f} (before learning)", rows
        )

    def judge(self, batches: Iterable[pa.RecordBatch], targets: Targets) -> dict[str, float | int | None]:
        """The metrics of rows that are not learnt from."""
        labels, margins, weights = [], [], []
        for batch in batches:
            own, weight = targets.read(batch)
            labels.append(own)
            weights.append(weight if weight is not None else np.ones(len(own)))
            slots, numbers = self.feed.slots(batch), self.feed.numbers(batch)
            found = self.trainer.margins(slots, numbers, batch.num_rows, self.parameters.threads)
            margins.append(found.to_numpy(zero_copy_only=False))
        if not labels:
            return metrics(np.zeros(0), np.zeros(0), None)
        sample = np.concatenate(weights) if targets.weight else None
        return metrics(np.concatenate(labels), sigmoid(np.concatenate(margins)), sample)

    def scorer(self) -> OnlineScorer:
        fields, keys, values = self.trainer.rows()
        rows = pa.table({"field": fields, "key": keys})
        table = values.to_numpy(zero_copy_only=False).reshape(len(keys), self.trainer.width)
        names = tuple(self.feed.encoder.number_names)
        fields_n = len(self.feed.encoder.field_names)
        return OnlineScorer(
            self.parameters.rates, names, self.feed.means, self.feed.scales, self.shared, fields_n,
            rows["field"].to_numpy(), rows["key"].to_numpy(), table,
        )  # fmt: skip


def begin(
    layout: Layout, shared: bool, parameters: OnlineParameters, batches: Iterator[pa.RecordBatch], context: RunContext
) -> tuple[Stream, Iterator[pa.RecordBatch]]:
    """A trainer for such columns, and the batches again: the first of them were looked at."""
    first: list[pa.RecordBatch] = []
    if layout.numeric or layout.vectors:
        while sum(b.num_rows for b in first) < MOMENT_ROWS and (batch := next(batches, None)) is not None:
            first.append(batch)
    feed = Feed.fitted(layout, first) if first else Feed(layout)
    trainer = parameters.rates.trainer(
        slots=len(layout.slots), numbers=len(feed.means), shared=shared, positions=layout.positions,
        batch=parameters.batch, seed=parameters.seed, threads=parameters.threads, evict_after=parameters.evict_after,
    )  # fmt: skip
    return Stream(parameters, shared, feed, trainer, context), itertools.chain(first, batches)


class _explained:
    """What the native trainer refuses, as an error of ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError) and not isinstance(error, DataError):
            raise LearningError(str(error)) from error
