"""`clean`: the usual repairs of raw columns, always in the same order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from penstock.data.schema import Info
from penstock.operators.base import CheckContext, Checked, Form, Names, Process, RunContext
from penstock.operators.clean_rules import Clip, Fill, clip_faults, clips_of, fill_faults, fills_of
from penstock.operators.column_checks import frame, repeated, typed, unknown

if TYPE_CHECKING:
    import polars as pl


class Clean(Process):
    """Repairs columns, in this order: trim, fill, clip, drop_nulls, dedup.

    trim takes white space off both ends of strings (an empty string stays one). fill puts a value where there is
    null. clip brings numbers into a range (null and NaN stay). drop_nulls drops rows with a null in any of its
    columns. dedup keeps one row of those that are equal in its columns (null equals null, NaN equals NaN). Types,
    roles and order stay. Errors: a value that its column's type cannot hold.
    Streams, but dedup needs memory for the distinct keys.
    """

    type: ClassVar[str] = "clean"
    example: ClassVar[str] = (
        '<process name="tidy" type="clean" from="raw" trim="city" fill="age=0, city=\'none\'" clip="price:0:1000"/>'
    )

    trim: Names = Field((), description="string columns")
    fill: Annotated[str, Form("names")] = Field("", description="what stands for null: \"a=0, b='none'\"")
    clip: Annotated[str, Form("names")] = Field("", description='"price:0:1000"; either bound may be missing')
    drop_nulls: Names = Field((), description="columns that must not be null")
    dedup: Names = Field((), description="columns that together name a row")
    keep: Literal["first", "last", "any"] = Field("first", description="which of equal rows dedup keeps")

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = frame(inputs[self.from_])
        fills, faults = fills_of(self.fill)
        clips, clip_problems = clips_of(self.clip)
        faults += clip_problems
        named = {
            "trim": self.trim,
            "fill": tuple(fill.column for fill in fills),
            "clip": tuple(clip.column for clip in clips),
            "drop_nulls": self.drop_nulls,
            "dedup": self.dedup,
        }
        for field, names in named.items():
            faults += unknown(names, schema, field) + repeated(names, field)
        faults += typed(self.trim, schema, "trim", "string") + typed(named["clip"], schema, "clip", "number")
        for fill in fills:
            faults += fill_faults(fill, schema.get(fill.column))
        for clip in clips:
            faults += clip_faults(clip, schema.get(clip.column))
        return Checked({"": schema}, tuple(faults))

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.LazyFrame:
        import polars as pl

        found: pl.LazyFrame = inputs[self.from_]
        types = found.collect_schema()
        if self.trim:
            # A null-typed column (every field was empty) has nothing to trim.
            found = found.with_columns(pl.col(n).str.strip_chars() for n in self.trim if types[n] != pl.Null)
        if fills := fills_of(self.fill)[0]:
            found = found.with_columns(_filled(fill, types[fill.column]) for fill in fills)
        if clips := clips_of(self.clip)[0]:
            found = found.with_columns(_clipped(clip, types[clip.column]) for clip in clips)
        if self.drop_nulls:
            found = found.drop_nulls(list(self.drop_nulls))
        if self.dedup:
            keep: Literal["first", "last"] = "last" if self.keep == "last" else "first"
            found = found.unique(list(self.dedup), keep=keep, maintain_order=True)
        return found


def _filled(fill: Fill, dtype: pl.DataType) -> pl.Expr:
    import polars as pl

    if dtype == pl.Null:
        return pl.lit(fill.value).alias(fill.column)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        literal = pl.lit(fill.value_for(dtype)).dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
        return pl.col(fill.column).fill_null(literal.cast(dtype))
    return pl.col(fill.column).fill_null(pl.lit(fill.value_for(dtype)).cast(dtype))


def _clipped(clip: Clip, dtype: pl.DataType) -> pl.Expr:
    import polars as pl

    column = pl.col(clip.column)
    if dtype == pl.Null:
        return column
    low = None if clip.low is None else pl.lit(clip.low).cast(dtype)
    high = None if clip.high is None else pl.lit(clip.high).cast(dtype)
    return column.clip(low, high)
