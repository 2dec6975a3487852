"""Training rows as a learner takes them: encoded columns, labels and weights, with `valid` rows below them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.operators.base import RunContext
from penstock.registry.bundles import WARMUP_ROWS
from penstock.training.faults import InputError
from penstock.training.inputs import Layout
from penstock.training.labels import read_labels, read_weights
from penstock.training.matrices import Encoder, Matrix, encode_all, joined, learn

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """`valid[row]` marks the rows of the valid frame, which stand last."""

    encoder: Encoder
    matrix: Matrix
    labels: Floats
    weights: Floats
    weighted: bool
    valid: npt.NDArray[np.bool_]
    #: The first rows as they came.
    first: pa.Table | None = None

    @property
    def train(self) -> npt.NDArray[np.bool_]:
        return ~self.valid


@dataclass
class _Targets:
    """Labels and weights, gathered batch by batch."""

    label: str
    weight: str
    labels: list[pa.Array] = field(default_factory=list)
    weights: list[pa.Array] = field(default_factory=list)
    rows: int = 0
    first: pa.Table | None = None

    def read(self, batch: pa.RecordBatch) -> None:
        if not self.rows and batch.num_rows:  # copied, so that the batch itself may go
            few = pa.array(range(min(batch.num_rows, WARMUP_ROWS)))
            self.first = pa.Table.from_batches([batch.take(few)])
        self.rows += batch.num_rows
        self.labels.append(batch.column(self.label))
        if self.weight:
            self.weights.append(batch.column(self.weight))

    def values(self, type_: pa.DataType) -> tuple[Floats, Floats]:
        labels = read_labels(pa.chunked_array(self.labels, None if self.labels else type_), self.label)
        weights = read_weights(pa.chunked_array(self.weights), self.weight) if self.weights else np.ones(len(labels))
        return labels, weights


def gather(frame: Any, valid: Any | None, layout: Layout, label: str, weight: str, context: RunContext) -> Samples:
    """Read the frames once each. Raises `LabelError` or `InputError` where they are not fit to train on."""
    names = list(dict.fromkeys((*layout.columns, label, *([weight] if weight else []))))
    targets = _Targets(label, weight)
    encoder, matrix = learn(_told(context.batches(frame.select(names)), "training", context), layout, targets.read)
    labels, weights = targets.values(pa.null())
    if valid is None:
        return Samples(encoder, matrix, labels, weights, bool(weight), np.zeros(len(labels), bool), targets.first)
    known = valid.collect_schema().names()
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(
            f"the valid frame has no column '{missing[0]}'", "it needs the columns of the training frame", "TRAIN009"
        )
    more = _Targets(label, weight)
    judged = encode_all(_told(context.batches(valid.select(names)), "valid", context), encoder, more.read)
    more_labels, more_weights = more.values(pa.null())
    both = joined([matrix, judged], encoder)
    marks = np.repeat([False, True], [len(labels), len(more_labels)])
    return Samples(
        encoder,
        both,
        np.concatenate([labels, more_labels]),
        np.concatenate([weights, more_weights]),
        bool(weight),
        marks,
        targets.first,
    )


def _told(batches: Iterable[pa.RecordBatch], what: str, context: RunContext) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        context.progress(f"reading {what} rows: {rows:,}")
        yield batch
