"""`sample` and `split`: choosing rows by chance, hash or time, the same rows at any number of threads.

Chance is a hash of the row's ordinal and the seed, never a generator's state: a row's fate depends on its place alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt

from penstock.data.schema import Column, Info, Schema
from penstock.errors import DataError
from penstock.native import hash_column
from penstock.operators.base import CheckContext, Checked, ColumnName, Expression, Fault, Names, Process, RunContext
from penstock.operators.column_checks import frame, is_a, typed, unknown
from penstock.operators.conditions import condition, condition_faults
from penstock.operators.order_statistics import Cuts, element
from penstock.operators.split_cuts import DEFAULT_PORTS, bound, cumulative, dated, moment, split_faults

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

#: Temporary columns; no user's column has such a name.
_ROW = "__penstock_row"
_PART = "__penstock_part"
#: A sample and a split with the same seed must not choose by the same numbers.
_SAMPLE_SALT = 0x53414D504C45
_SEEDS = 2**64


class Sample(Process):
    """Keeps a share of the rows, or copies them.

    rate < 1 keeps each row with that chance; rate > 1 gives floor(rate) copies, side by side, and one more by chance.
    With `where`, only rows for which it is true are sampled; the others (false or null) pass once. `weight` adds a
    f64 column: 1/rate for sampled rows, 1 for the others. The choice depends on the seed and the row's ordinal, so
    it is the same at any number of threads. Order is kept. Streams.
    """

    type: ClassVar[str] = "sample"
    example: ClassVar[str] = (
        '<process name="fewer" type="sample" from="clicks" rate="0.1" where="label = 0" weight="w"/>'
    )

    rate: float = Field(gt=0, allow_inf_nan=False, description="below 1 the share to keep, above 1 how many copies")
    where: Expression = Field("", description="sample only these rows; the others pass once")
    weight: ColumnName = Field("", description="a new column that holds 1/rate (1 outside where)")
    seed: NonNegativeInt = Field(0, lt=_SEEDS, description="another seed, another choice")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = frame(inputs[self.from_])
        faults: list[Fault] = []
        if self.where:
            faults += condition_faults(self.where, schema, "where")
        if self.weight and self.weight in schema:
            said = f"weight: there is a column '{self.weight}' already"
            faults.append(Fault("OPER103", said, "name a column that is not there yet"))
        return Checked({"": self._schema(schema)}, tuple(faults))

    def _schema(self, schema: Schema) -> Schema:
        import pyarrow as pa

        added = (Column(self.weight, pa.float64()),) if self.weight else ()
        return schema.with_columns((*schema, *added))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        import polars as pl

        schema = frame(context.info(self.from_))
        found: pl.LazyFrame = inputs[self.from_]
        inside = condition(self.where, schema) if self.where else pl.lit(True)
        if self.weight:
            weight = pl.when(inside).then(pl.lit(1.0 / self.rate)).otherwise(pl.lit(1.0)).cast(pl.Float64)
            found = found.with_columns(weight.alias(self.weight))
        names = self._schema(schema).names
        whole, chance = floor(self.rate), Fraction(self.rate) - floor(self.rate)
        extra = _ordinal().map_batches(
            lambda rows: _hashes(rows, self.seed ^ _SAMPLE_SALT) < bound(chance),
            return_dtype=pl.Boolean,
            is_elementwise=True,
        )
        copies = pl.when(inside).then(extra.cast(pl.UInt32) + whole).otherwise(pl.lit(1, pl.UInt32))
        found = found.with_row_index(_ROW).with_columns(copies.alias(_PART))
        if whole == 0:
            return found.filter(pl.col(_PART) > 0).select(names)
        return found.map_batches(_copied, streamable=True).select(names)


def _copied(morsel: pl.DataFrame) -> pl.DataFrame:
    import numpy as np

    return morsel[np.repeat(np.arange(morsel.height), morsel[_PART].to_numpy())]


class Split(Process):
    """Parts the rows between named ports, each row into exactly one; order is kept within each.

    `at` holds shares in port order, and the last port takes the rest. time: the cut is the element at place
    ceil(share x n), counted from 0, of the sorted column; strictly smaller rows go left, so equal times stay
    together; or `at` holds dates to cut at. hash: a row goes by XXH3-64(seed) of the column's canonical bytes, so
    equal values stay together, in any file, for good. random: the same over the row's ordinal. order: the first
    ceil(share x n) rows go left, for logs that are in time order but hold no time. Errors: a null in `column`.
    random and hash stream; order counts the rows before, and time reads the column once (they end a stage and hold
    nothing in memory but, for strings, the distinct values).
    """

    type: ClassVar[str] = "split"
    example: ClassVar[str] = '<process name="parts" type="split" from="kept" by="time" column="ts" at="0.8"/>'

    by: Literal["random", "hash", "time", "order"] = Field(description="what decides where a row goes")
    column: ColumnName = Field("", description="hash, time: the column that decides")
    at: Names = Field(description="shares in port order, the last port takes the rest; time: or dates")
    into: Names = Field((), description="the ports' names; default: train test, or train valid test")
    seed: NonNegativeInt = Field(0, lt=_SEEDS, description="random, hash: another seed, another split")

    def staged(self) -> bool:
        return self.by == "order" or (self.by == "time" and not dated(self.at))

    def ports(self) -> tuple[str, ...]:
        return self.into or DEFAULT_PORTS.get(len(self.at), ())

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = frame(inputs[self.from_])
        faults = split_faults(self.by, self.column, self.at, self.into)
        if self.column:
            faults += unknown([self.column], schema, "column")
            faults += typed([self.column], schema, "column", "hashable" if self.by == "hash" else "time")
            faults += _literal_faults(self, schema)
        return Checked(dict.fromkeys(self.ports(), schema), tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> dict[str, pl.LazyFrame]:
        found: pl.LazyFrame = inputs[self.from_]
        if self.by == "time":
            return self._by_time(found, context)
        if self.by == "order":
            return self._by_order(found, context)
        return self._by_share(found, frame(context.info(self.from_)).names, context.step)

    def _by_share(self, found: pl.LazyFrame, names: tuple[str, ...], step: str) -> dict[str, pl.LazyFrame]:
        import numpy as np
        import polars as pl

        bounds = np.array([bound(share) for share in cumulative(self.at)], dtype=np.uint64)
        source, seed = self.column or _ROW, self.seed

        def parted(morsel: pl.DataFrame) -> pl.DataFrame:
            values = morsel[source]
            if values.null_count():
                raise _null(step, source, values.null_count())
            hashes = _hashes(values.cast(pl.Int64) if source == _ROW else values, seed)
            place = np.searchsorted(bounds, hashes, side="right").astype(np.uint8)
            return morsel.with_columns(pl.Series(_PART, place))

        if self.by == "random":
            found = found.with_row_index(_ROW)
        schema = {**found.collect_schema(), _PART: pl.UInt8()}
        found = found.map_batches(parted, streamable=True, schema=schema).cache()  # hashed once for all ports
        return {p: found.filter(pl.col(_PART) == i).select(names) for i, p in enumerate(self.ports())}

    def _by_order(self, found: pl.LazyFrame, context: RunContext) -> dict[str, pl.LazyFrame]:
        import polars as pl

        rows: int = context.collect(found.select(pl.len())).item()
        cuts = [0, *(ceil(share * rows) for share in cumulative(self.at)), rows]
        return {port: found.slice(a, b - a) for port, (a, b) in zip(self.ports(), pairwise(cuts), strict=True)}

    def _by_time(self, found: pl.LazyFrame, context: RunContext) -> dict[str, pl.LazyFrame]:
        import polars as pl

        column = self.column
        dtype = found.collect_schema()[column]
        if self.staged():
            cuts = Cuts(found.select(column), context)
            if cuts.nulls:
                raise _null(context.step, column, cuts.nulls)
            if not cuts.rows:
                return dict.fromkeys(self.ports(), found)
            literals = [cuts.at(element(share, cuts.rows)) for share in cumulative(self.at)]
            shown = pl.select(literal.alias(str(i)) for i, literal in enumerate(literals)).row(0)
            context.progress(f"cut '{column}' at {', '.join(map(str, shown))}")
        else:
            found = found.map_batches(_refusing_nulls(context.step, column), streamable=True)
            literals = [moment(text, dtype) for text in self.at]
        place = pl.col(column).cast(pl.String) if isinstance(dtype, pl.Categorical | pl.Enum) else pl.col(column)
        first, last = place < literals[0], place >= literals[-1]
        between = [(place >= a) & (place < b) for a, b in pairwise(literals)]
        return {port: found.filter(test) for port, test in zip(self.ports(), [first, *between, last], strict=True)}


def _literal_faults(split: Split, schema: Schema) -> list[Fault]:
    """Dates cut dates, timestamps and ISO 8601 strings, not numbers."""
    column = schema.get(split.column)
    if split.by != "time" or not dated(split.at) or column is None or column.type is None:
        return []
    if is_a(column.type, "number"):
        said = f"at: '{column.name}' is {column.type}, which cannot be cut at a date"
        return [Fault("OPER102", said, "give shares, or derive a timestamp first")]
    return []


def _ordinal() -> pl.Expr:
    import polars as pl

    return pl.col(_ROW).cast(pl.Int64)


def _hashes(values: pl.Series, seed: int) -> NDArray[np.uint64]:
    hashed: NDArray[np.uint64] = hash_column(values.to_arrow(), seed).to_numpy(zero_copy_only=False)
    return hashed


def _refusing_nulls(step: str, column: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def refuse(morsel: pl.DataFrame) -> pl.DataFrame:
        if nulls := morsel[column].null_count():
            raise _null(step, column, nulls)
        return morsel

    return refuse


def _null(step: str, column: str, nulls: int) -> DataError:
    rows = "a row has" if nulls == 1 else f"{nulls:,} rows or more have"
    hint = f'drop them first: <process type="filter" where="{column} is not null"/>, or fill them with clean'
    return DataError(f"step '{step}': {rows} no '{column}', so no port can take them", hint, "OPER108")
