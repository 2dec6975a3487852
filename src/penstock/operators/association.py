"""How much one column says about a binary label.

auc: the chance that a random positive has the greater value, ties counting half (Mann and Whitney, 1947).
ks: the greatest distance between the distribution functions of the two classes (Kolmogorov-Smirnov).
iv: information value, sum over bins of (p - q) ln(p / q), p and q the bin's shares of positives and negatives
(Siddiqi, Credit Risk Scorecards, 2006), with half a row added to each count so that empty cells stay finite.
mutual_information: sum of p(bin, y) ln(p(bin, y) / (p(bin) p(y))), in nats (Cover and Thomas, 2006).

Bins: numbers fall into at most ten with equal numbers of rows (equal values stay together), other values have one each
(the 100 most frequent; the rest share one); null and NaN have one of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

#: Bins of a numeric column.
BINS = 10
#: Values of any other column that have a bin of their own.
VALUES = 100


def binary_label(values: pl.Series) -> pl.Series | str:
    """The label as booleans (null stays null); or the values that are no label, as one would say them."""
    import polars as pl

    if values.dtype == pl.Boolean:
        return values
    found = values.drop_nulls().unique().sort()
    if {float(v) for v in found.head(4)} <= {0.0, 1.0} or {float(v) for v in found.head(4)} <= {-1.0, 1.0}:
        return values > 0
    shown = ", ".join(str(v) for v in found.head(4))
    return f"{shown} and {found.len() - 4} more values" if found.len() > 4 else shown


def association(values: pl.Series, labels: pl.Series) -> dict[str, float | None]:
    """auc, ks (numbers only), iv and mutual_information; null where a class is missing."""
    import polars as pl

    values, labels = values.filter(labels.is_not_null()), labels.drop_nulls()
    result: dict[str, float | None] = dict.fromkeys(("auc", "iv", "ks", "mutual_information"))
    positives = int(labels.sum())
    if values.dtype.is_nested() or not 0 < positives < labels.len():
        return result
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        numbers = values.cast(pl.Float64).fill_nan(None)
        known = pl.DataFrame({"value": numbers, "label": labels}).drop_nulls("value").sort("value", maintain_order=True)
        ascending = known["value"].to_numpy()
        result |= _curves(ascending, known["label"].to_numpy())
        bins = _binned(numbers, ascending)
    else:
        counts = values.drop_nulls().value_counts(name="__count", sort=False)
        common = counts.sort(["__count", values.name], descending=[True, False]).head(VALUES)[values.name]
        bins = (
            pl.DataFrame({"value": values})
            .select(
                pl.when(pl.col("value").is_null())
                .then(-1)
                .otherwise(
                    pl.col("value").replace_strict(common, pl.int_range(common.len(), eager=True), default=VALUES)
                )
            )
            .to_series()
        )
    return result | _over_bins(bins.to_numpy().astype("int64"), labels.to_numpy())


def _curves(values: NDArray[np.float64], labels: NDArray[np.bool_]) -> dict[str, float | None]:
    """auc and ks; `values` ascending, `labels` in the same order."""
    import numpy as np

    positives = int(labels.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        return {}
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # the last row of each group of equal values
    below_positive = np.cumsum(labels)[last]
    below_negative = last + 1 - below_positive
    of_positive = np.diff(below_positive, prepend=0)
    before_negative = np.concatenate([[0], below_negative[:-1]])
    of_negative = np.diff(below_negative, prepend=0)
    wins = float(np.sum(of_positive * (before_negative + of_negative / 2.0)))
    distance = float(np.max(np.abs(below_positive / positives - below_negative / negatives)))
    return {"auc": wins / (positives * negatives), "ks": distance}


def _binned(numbers: pl.Series, ascending: NDArray[np.float64]) -> pl.Series:
    """The bin of each number, -1 for null: bounds at the deciles, equal values together."""
    import numpy as np
    import polars as pl

    bounds = np.unique(ascending[[ascending.size * i // BINS for i in range(1, BINS)]]) if ascending.size else ascending
    found = np.searchsorted(bounds, numbers.fill_null(0.0).to_numpy(), side="right")
    return pl.Series(np.where(numbers.is_null().to_numpy(), -1, found))


def _over_bins(bins: NDArray[np.int64], labels: NDArray[np.bool_]) -> dict[str, float | None]:
    import numpy as np

    rows = np.bincount(bins + 1).astype(np.float64)
    positive = np.bincount(bins + 1, weights=labels.astype(np.float64))[rows > 0]
    rows = rows[rows > 0]
    negative = rows - positive
    p = (positive + 0.5) / (positive + 0.5).sum()
    q = (negative + 0.5) / (negative + 0.5).sum()
    information = 0.0
    for counts in (positive, negative):
        seen = counts > 0
        joint = counts[seen] / rows.sum()
        information += float(np.sum(joint * np.log(joint * rows.sum() / (rows[seen] * (counts.sum() / rows.sum())))))
    return {"iv": float(np.sum((p - q) * np.log(p / q))), "mutual_information": max(information, 0.0)}
