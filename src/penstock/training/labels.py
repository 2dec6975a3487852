"""Labels and sample weights as numbers, or a refusal that says what is wrong with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.training.faults import LabelError

Floats = npt.NDArray[np.float64]


def read_labels(column: pa.ChunkedArray | pa.Array, name: str, *, both: bool = True) -> Floats:
    """Labels 0/1, -1/1 or booleans as float64 zeros and ones.

    column: (n,) bool, integer or float. Null and NaN are refused with their count (TRAIN003), other values by name
    (TRAIN002); with `both`, a column of one class too (TRAIN004).
    """
    missing = column.null_count
    if not (pa.types.is_boolean(column.type) or _number(column.type) or pa.types.is_null(column.type)):
        raise LabelError(
            f"label '{name}' is {column.type}; labels are 0 and 1, -1 and 1, or booleans",
            f"derive one first: columns=\"cast({name} = 'yes' as int) as {name}\"",
            "TRAIN001",
        )
    values = pc.cast(column.drop_null(), pa.float64()).to_numpy()
    nans = int(np.isnan(values).sum())
    missing += nans
    if missing:
        # NaN is no null in an expression, and greater than every number: one comparison drops both.
        where = f"1 >= {name}" if nans else f"{name} is not null"
        raise LabelError(
            f"label '{name}' is missing (null or NaN) in {missing:,} of {len(column):,} rows",
            f'keep only rows with a label: <process type="filter" where="{where}"/>',
            "TRAIN003",
        )
    negatives = values == -1
    strange = np.unique(values[~(negatives | (values == 0) | (values == 1))])
    if not len(strange) and negatives.any() and (values == 0).any():
        raise LabelError(f"label '{name}' mixes -1, 0 and 1; labels are 0 and 1, or -1 and 1", code="TRAIN002")
    if len(strange):
        shown = ", ".join(f"{v:g}" for v in strange[:5]) + (", ..." if len(strange) > 5 else "")
        raise LabelError(
            f"label '{name}' holds {shown}; labels are 0 and 1, -1 and 1, or booleans",
            f'derive one first, e.g. columns="cast({name} > {strange[0]:g} as int) as {name}"',
            "TRAIN002",
        )
    labels = np.where(values == 1, 1.0, 0.0)
    if both:
        ones = int(labels.sum())
        if ones in (0, len(labels)):
            said = "there are no rows" if not len(labels) else f"all {len(labels):,} rows are {'01'[ones > 0]}"
            raise LabelError(
                f"label '{name}' has one class only: {said}",
                "a model needs rows of both classes; look at the filters and splits before it",
                "TRAIN004",
            )
    return labels


def read_weights(column: pa.ChunkedArray | pa.Array, name: str) -> Floats:
    """Sample weights as float64. Null, NaN, infinite and negative ones, and a sum of 0, are refused (TRAIN005)."""
    if not (_number(column.type) or pa.types.is_boolean(column.type)):
        raise LabelError(f"weight '{name}' is {column.type}, not a number", code="TRAIN005")
    values: Floats = pc.fill_null(pc.cast(column, pa.float64()), float("nan")).to_numpy()
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise LabelError(f"weight '{name}' is null, NaN or infinite in {wrong:,} rows", code="TRAIN005")
    if (values < 0).any():
        raise LabelError(
            f"weight '{name}' is negative in {int((values < 0).sum()):,} rows", "weights are 0 or more", "TRAIN005"
        )
    if len(values) and not values.any():
        raise LabelError(f"weight '{name}' is 0 in every row", code="TRAIN005")
    return values


def _number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))
