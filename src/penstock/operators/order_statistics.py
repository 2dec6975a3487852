"""Elements of a sorted column, exactly, without sorting it or holding it in memory.

The column is written aside once; then each pass over it narrows the range that holds the wanted element 65,536-fold
(radix selection over keys whose unsigned order is the column's order), until what is left fits a small array.
Strings are counted by distinct value instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

from penstock.operators.base import RunContext

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_BUCKET_BITS = 16
#: Few enough to select among in memory.
_FEW = 1_000_000
_SIGN = 1 << 63


def element(share: Fraction, rows: int) -> int:
    """The place, from 0, of the first element that does not go left; the last one where the share takes all."""
    return min(ceil(share * rows), rows - 1)


class Cuts:
    """The sorted elements of a one-column frame. It executes the frame once, when it is made."""

    def __init__(self, frame: pl.LazyFrame, context: RunContext) -> None:
        import polars as pl

        [(self.name, self.dtype)] = frame.collect_schema().items()
        self._context = context
        file = context.scratch / "cut.parquet"
        context.collect(frame.sink_parquet(file, compression="lz4", statistics=False, lazy=True))
        self._column = pl.scan_parquet(file)
        counts = context.collect(self._column.select(rows=pl.len(), nulls=pl.col(self.name).null_count()))
        self.rows: int = counts["rows"].item()
        self.nulls: int = counts["nulls"].item()

    def at(self, place: int) -> pl.Expr:
        """The element at `place` (from 0) of the sorted column, as a literal of its type. There must be no nulls."""
        import polars as pl

        if self.dtype == pl.String or isinstance(self.dtype, pl.Categorical | pl.Enum):
            return pl.lit(self._string(place), dtype=pl.String)
        key = self._key(place)
        if self.dtype.is_float():
            return pl.lit(_float_of(key), dtype=pl.Float64)
        if self.dtype.is_unsigned_integer():
            return pl.lit(key, dtype=pl.UInt64).cast(self.dtype)
        return pl.lit(key - _SIGN, dtype=pl.Int64).cast(self.dtype)

    def _string(self, place: int) -> str:
        import polars as pl

        counted = self._context.collect(
            self._column.select(pl.col(self.name).cast(pl.String)).group_by(self.name).agg(rows=pl.len())
        )
        counted = counted.sort(self.name)
        found = int((counted["rows"].cum_sum() <= place).sum())
        value: str = counted[self.name][found]
        return value

    def _key(self, place: int) -> int:
        import numpy as np

        low, high = _SIGN * 2 - 1, 0
        for keys in self._keys():
            low, high = min(low, int(keys.min())), max(high, int(keys.max()))
        while low < high:
            shift = max(0, (high - low).bit_length() - _BUCKET_BITS)
            counts = np.zeros(1 << _BUCKET_BITS, dtype=np.int64)
            for keys in self._keys():
                inside = keys[(keys >= low) & (keys <= high)] - np.uint64(low)
                buckets = (inside >> np.uint64(shift)).astype(np.int64)
                counts += np.bincount(buckets, minlength=counts.size)
            up_to = np.cumsum(counts)
            bucket = int(np.searchsorted(up_to, place, side="right"))
            place -= int(up_to[bucket] - counts[bucket])
            low += bucket << shift
            high = min(high, low + (1 << shift) - 1)
            if counts[bucket] <= _FEW:
                few = [keys[(keys >= low) & (keys <= high)] for keys in self._keys()]
                return int(np.partition(np.concatenate(few), place)[place])
        return low

    def _keys(self) -> Iterator[NDArray[np.uint64]]:
        """The column's values as unsigned integers of the same order, batch by batch."""
        import polars as pl

        wide = pl.Float64 if self.dtype.is_float() else pl.UInt64 if self.dtype.is_unsigned_integer() else pl.Int64
        for batch in self._context.batches(self._column.select(pl.col(self.name).to_physical().cast(wide))):
            if batch.num_rows:
                yield _ordered_keys(batch.column(0).to_numpy(zero_copy_only=False))


def _ordered_keys(values: NDArray[np.generic]) -> NDArray[np.uint64]:
    import numpy as np

    if values.dtype == np.uint64:
        return values.astype(np.uint64)
    if values.dtype == np.int64:
        return values.view(np.uint64) ^ np.uint64(_SIGN)
    floats = values.astype(np.float64) + 0.0  # -0.0 becomes 0.0: they are equal
    floats[np.isnan(floats)] = np.nan  # one NaN, positive, hence the greatest
    bits = floats.view(np.uint64)
    return np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(_SIGN))


def _float_of(key: int) -> float:
    import numpy as np

    bits = key & ~_SIGN if key & _SIGN else ~key & (2**64 - 1)
    return float(np.uint64(bits).view(np.float64))
