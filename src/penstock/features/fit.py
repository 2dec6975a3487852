"""What fitted items learn from the data: one streaming pass learns everything that does not build on another fit.

The result depends on the rows and their order alone, never on how they arrive in batches or on the number of threads:
sums are taken over blocks of a fixed number of values, quantiles are elements of the sorted column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock import native
from penstock.errors import DataError
from penstock.features.check import CheckedFile, CheckedItem
from penstock.features.parameters import Fit
from penstock.features.plan import Plan
from penstock.features.resolve import Learnt, resolve

if TYPE_CHECKING:
    import polars as pl

#: Starts one pass over the named raw columns.
Read = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
Floats = npt.NDArray[np.float64]

_BLOCK = 65_536


def learn(checked: CheckedFile, read: Read, scratch: Path, progress: Callable[[str], None]) -> Learnt:
    """Fit every item of `checked` that asks for it. `scratch` receives learnt dictionaries.

    Raises `DataError` where an item finds no value to learn from.
    """
    learnt = Learnt()
    waiting = list(checked.fitted)
    while waiting:
        ready = [item for item in waiting if not _builds_on(item, waiting, checked)]
        progress(f"learning {', '.join(item.item.name for item in ready)}")
        learnt = learnt | _one_pass(checked, ready, learnt, read, scratch)
        waiting = [item for item in waiting if item not in ready]
    return learnt


def _builds_on(item: CheckedItem, others: Sequence[CheckedItem], checked: CheckedFile) -> bool:
    below = _closure(checked, [source.item for source in item.sources])
    return any(checked.items[index] is other for index in below for other in others)


def _closure(checked: CheckedFile, indices: Sequence[int]) -> set[int]:
    """These items (negative: none) and all that they read."""
    found: set[int] = set()
    waiting = [index for index in indices if index >= 0]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += [source.item for source in checked.items[index].sources if source.item >= 0]
    return found


def _one_pass(checked: CheckedFile, items: Sequence[CheckedItem], learnt: Learnt, read: Read, scratch: Path) -> Learnt:
    learners = {item.item.name: _learner(item) for item in items}
    defined = [item.sources[0].item for item in items if item.sources[0].item >= 0]
    plan = _partial(checked, defined, learnt) if defined else None
    raw = dict.fromkeys(item.sources[0].column for item in items if item.sources[0].item < 0)
    for batch in read(tuple(dict.fromkeys((*raw, *(plan.columns if plan else ()))))):
        values: Mapping[str, Any] = _computed(plan, batch, [checked.items[i].item.name for i in defined])
        for item in items:
            source = item.sources[0]
            column = batch.column(source.column) if source.item < 0 else values[checked.items[source.item].item.name]
            learners[item.item.name].add(column)
    params: dict[str, Mapping[str, Any]] = {}
    dictionaries: dict[str, Path] = {}
    for item in items:
        learner = learners[item.item.name]
        if isinstance(learner, _Counts):
            dictionaries[item.item.name] = learner.compiled(item, scratch)
        else:
            params[item.item.name] = learner.result(item)
    return Learnt(params, dictionaries)


def _partial(checked: CheckedFile, indices: Sequence[int], learnt: Learnt) -> Plan:
    """A plan of the defines to look at and what they read; the rest is cut off after them."""
    needed = _closure(checked, indices)
    kept = sorted(needed)
    place = {index: at for at, index in enumerate(kept)}
    items = tuple(
        replace(
            checked.items[index],
            sources=tuple(replace(s, item=place[s.item]) if s.item >= 0 else s for s in checked.items[index].sources),
        )
        for index in kept
    )
    return resolve(replace(checked, items=items), learnt)


def _computed(plan: Plan | None, batch: pa.RecordBatch, names: list[str]) -> Mapping[str, Any]:
    if plan is None:
        return {}
    values = plan.kernel.values(batch, names)
    return {name: values.column(name) for name in names}


# --- learners -----------------------------------------------------------------------------------------------


class _Learner(Protocol):
    def add(self, column: pa.Array) -> None: ...
    def result(self, item: CheckedItem) -> Mapping[str, Any]: ...


def _learner(item: CheckedItem) -> _Learner:
    fit = item.fit
    if fit is None:
        raise ValueError(f"'{item.item.name}' learns nothing")
    if fit.kind == "quantile":
        return _Quantiles(fit)
    return _Counts(fit) if fit.kind == "dict" else _Moments(item.params["method"])


def _numbers(column: pa.Array) -> Floats:
    """The finite values, in order, as f64."""
    import polars as pl

    series = cast("pl.Series", pl.from_arrow(column))
    if isinstance(series.dtype, pl.List | pl.Array):
        series = series.explode()
    values = series.drop_nulls().cast(pl.Float64).to_numpy()
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def _nothing(item: CheckedItem) -> DataError:
    name = item.item.attrs.get("from", "")
    return DataError(
        f"{item.item.kind} '{item.item.name}' has nothing to learn from: '{name}' has no usable value in these rows",
        "is fit_from the right step?",
        "FEAT027",
    )


class _Moments:
    """Mean and standard deviation (of the population), least and most."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.left: list[Floats] = []
        self.waiting = 0
        self.blocks: list[tuple[int, float, float]] = []  # count, mean, sum of squared distances from it
        self.least, self.most = math.inf, -math.inf

    def add(self, column: pa.Array) -> None:
        values = _numbers(column)
        if not len(values):
            return
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))
        self.left.append(values)
        self.waiting += len(values)
        if self.waiting >= _BLOCK:
            whole = np.concatenate(self.left)
            cut = len(whole) // _BLOCK * _BLOCK
            for start in range(0, cut, _BLOCK):
                self.block(whole[start : start + _BLOCK])
            self.left, self.waiting = [whole[cut:]], len(whole) - cut

    def block(self, values: Floats) -> None:
        mean = float(values.mean())
        self.blocks.append((len(values), mean, float(np.square(values - mean).sum())))

    def result(self, item: CheckedItem) -> Mapping[str, Any]:
        if self.waiting:
            self.block(np.concatenate(self.left))
        count = sum(n for n, _, _ in self.blocks)
        if not count:
            raise _nothing(item)
        if self.method == "minmax":
            return {"min": self.least + 0.0, "max": self.most + 0.0}
        mean = math.fsum(n * m for n, m, _ in self.blocks) / count
        spread = math.fsum(s + n * (m - mean) ** 2 for n, m, s in self.blocks)
        # A constant column has no spread: it becomes 0 everywhere, as a scaler of 1 makes it.
        return {"mean": mean + 0.0, "std": math.sqrt(spread / count) or 1.0}


class _Quantiles:
    """Bounds at the elements ceil(i x n / N) of the sorted column, each once."""

    def __init__(self, fit: Fit) -> None:
        self.bins = fit.number
        self.parts: list[Floats] = []

    def add(self, column: pa.Array) -> None:
        self.parts.append(_numbers(column))

    def result(self, item: CheckedItem) -> Mapping[str, Any]:
        values = np.concatenate(self.parts) if self.parts else np.empty(0)
        if not len(values):
            raise _nothing(item)
        places = sorted({-(-i * len(values) // self.bins) for i in range(1, self.bins)} - {len(values)})
        chosen = np.partition(values, places)[places] if places else values[:1]
        bounds = np.unique(chosen + 0.0)
        return {"bounds": [float(bound) for bound in bounds]}


class _Counts:
    """How often each value stands, by its canonical text; counts are folded together as they grow."""

    def __init__(self, fit: Fit) -> None:
        self.least = fit.number
        self.parts: list[pl.DataFrame] = []
        self.rows = 0
        self.folded = 1 << 20

    def add(self, column: pa.Array) -> None:
        import polars as pl

        counted = _texts(column).alias("value").value_counts(name="count").cast({"count": pl.UInt64})
        self.parts.append(counted)
        self.rows += counted.height
        if self.rows > self.folded:
            self.fold()
            self.folded = max(self.folded, 2 * self.rows)

    def fold(self) -> None:
        import polars as pl

        together = pl.concat(self.parts).group_by("value").agg(pl.col("count").sum())
        self.parts, self.rows = [together], together.height

    def result(self, item: CheckedItem) -> Mapping[str, Any]:
        raise NotImplementedError(f"{item.item.name} learns a dictionary, not parameters")

    def compiled(self, item: CheckedItem, scratch: Path) -> Path:
        import polars as pl

        if not self.rows:
            raise _nothing(item)
        self.fold()
        kept = self.parts[0].filter(pl.col("count") >= self.least).sort(["count", "value"], descending=[True, False])
        if not kept.height:
            raise _nothing(item)
        target = scratch / f"{item.item.name}.dict"
        native.Dictionary.build(kept["value"].to_list(), str(target))
        return target


def _texts(column: pa.Array) -> pl.Series:
    """The canonical text of every value, nulls left out."""
    import polars as pl

    series = cast("pl.Series", pl.from_arrow(column))
    if isinstance(series.dtype, pl.List | pl.Array):
        series = series.explode()
    series = series.drop_nulls()
    if isinstance(series.dtype, pl.Datetime):
        series = series.dt.epoch("us")
    return series.cast(pl.String)


__all__ = ["Read", "learn"]
