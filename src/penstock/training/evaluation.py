"""`evaluate` over a collected frame: metrics, and the curves for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from penstock.training import sections
from penstock.training.faults import InputError
from penstock.training.labels import read_labels, read_weights
from penstock.training.metrics import gauc, metrics


def evaluate(
    rows: pl.DataFrame, label: str, score: str, weight: str, by: Sequence[str]
) -> tuple[dict[str, float | int | None], list[Mapping[str, Any]]]:
    """Metrics by name, and report sections. Raises `LabelError` and `InputError` for missing labels or scores."""
    labels = read_labels(rows[label].to_arrow(), label, both=False)
    scores = rows[score].cast(pl.Float64).to_numpy()
    missing = int(np.isnan(scores).sum())
    if missing:
        said = f"score '{score}' is missing (null or NaN) in {missing:,} of {len(scores):,} rows"
        raise InputError(said, "a model gives every row a score: was this column joined in?", "TRAIN017")
    weights = read_weights(rows[weight].to_arrow(), weight) if weight and len(rows) else None
    found = metrics(labels, scores, weights)
    if by:
        # A null is a group of its own, as in an aggregate.
        groups = rows.select(pl.struct(by).rank("dense")).to_series().fill_null(0).to_numpy().astype(np.int64)
        found["gauc"] = gauc(labels, scores, groups, weights)
    return found, list(sections.curves(labels, scores, weights)) if len(rows) else []
