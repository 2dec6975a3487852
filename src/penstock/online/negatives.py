"""Which impressions are kept where they turn out to be negatives: by hash of their ids, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from penstock.native import hash_column

if TYPE_CHECKING:
    import pyarrow as pa

#: Splits and samples of the same ids must not choose by the same numbers.
_SEED = 0x4E454741544956


def kept(ids: Sequence[bytes], share: float) -> Iterator[bool]:
    """Whether each id is among the share: XXH3-64(seed, id) / 2^64 < share."""
    if share >= 1 or not ids:
        return repeat(True)
    import pyarrow as pa

    return iter(kept_column(pa.array([id.decode() for id in ids], pa.string()), share))


def kept_column(ids: pa.Array, share: float) -> list[bool]:
    import numpy as np

    hashes = hash_column(ids, _SEED).to_numpy()
    found: list[bool] = (hashes < np.uint64(min(int(share * 2**64), 2**64 - 1))).tolist()
    return found
