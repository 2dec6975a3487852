"""Rows as a model takes them: keys a slot, numbers, labels; cut from what was read, without copies where it can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from penstock.training.matrices import Encoder, Matrix, joined
from penstock.training.tables import Bag

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """Rows `first` to `first + count` of an epoch. labels: float32 [count] 0 or 1; weights: float32 [count] or None.

    times: int64 [count], event time in seconds since the epoch, or None. What is to be predicted alone has labels None.
    """

    first: int
    encoder: Encoder
    matrix: Matrix
    labels: Floats | None
    weights: Floats | None = None
    times: npt.NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        return self.matrix.rows

    @cached_property
    def bags(self) -> Mapping[str, Bag]:
        return bags_of(self.encoder.field_names, self.matrix)

    @property
    def numbers(self) -> Floats:
        return self.matrix.numbers

    @property
    def event_time_s(self) -> int:
        """The newest of its rows."""
        return int(self.times.max()) if self.times is not None and self.count else 0

    def __len__(self) -> int:
        return self.count

    def slice(self, offset: int, length: int) -> Rows:
        stop = offset + length

        def part(column: npt.NDArray | None) -> npt.NDArray | None:  # type: ignore[type-arg]
            return column[offset:stop] if column is not None else None

        return replace(
            self, first=self.first + offset, matrix=self.matrix.part(offset, stop), labels=part(self.labels),
            weights=part(self.weights), times=part(self.times),
        )  # fmt: skip


def join(parts: Sequence[Rows]) -> Rows:
    """Rows that follow one another as one."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]

    def whole(columns: Sequence[npt.NDArray | None]) -> npt.NDArray | None:  # type: ignore[type-arg]
        held = [column for column in columns if column is not None]
        return np.concatenate(held) if held else None

    return replace(
        first,
        matrix=joined([part.matrix for part in parts], first.encoder),
        labels=whole([part.labels for part in parts]),
        weights=whole([part.weights for part in parts]),
        times=whole([part.times for part in parts]),
    )


def bags_of(names: Sequence[str], matrix: Matrix) -> Mapping[str, Bag]:
    """Slot -> its bag. `names`: of the matrix's slots; a key list whose places are fields has a slot a place."""
    return {
        name: Bag(keys.keys.view(np.int64), keys.offsets, keys.values)
        for name, keys in zip(names, matrix.slots, strict=True)
    }
