"""The few numeric functions whose exact result Polars has no expression for: numpy's, applied elementwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl


def fmod(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    """The IEEE remainder with the dividend's sign; null where b is 0."""

    def apply(columns: Sequence[pl.Series]) -> pl.Series:
        x, y = columns
        with np.errstate(all="ignore"):
            values = np.fmod(x.to_numpy(), y.to_numpy())
        found = pl.Series(x.name, np.atleast_1d(values), dtype=pl.Float64)
        # NaN marks nulls in numpy: a null comes from the inputs alone.
        missing = x.is_null() | y.is_null() | (y == 0.0)
        return found.set(missing, None)

    return pl.map_batches([a, b], apply, return_dtype=pl.Float64, is_elementwise=True)


def log10(x: pl.Expr) -> pl.Expr:
    """The decimal logarithm; Polars divides two natural ones, so its log10(1000) falls short of 3."""
    return x.map_batches(_apply(np.log10), return_dtype=pl.Float64, is_elementwise=True)


def log2(x: pl.Expr) -> pl.Expr:
    """The binary logarithm, exact for powers of two."""
    return x.map_batches(_apply(np.log2), return_dtype=pl.Float64, is_elementwise=True)


def _apply(function: np.ufunc) -> Callable[[pl.Series], pl.Series]:
    def apply(x: pl.Series) -> pl.Series:
        with np.errstate(all="ignore"):
            values = function(x.to_numpy())
        return pl.Series(x.name, values, dtype=pl.Float64).set(x.is_null(), None)

    return apply
