"""`stats`: a row a column, and with a label how much each column says about it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, NonNegativeInt

from penstock.data.schema import Column, Info, Schema
from penstock.errors import DataError
from penstock.operators.association import association, binary_label
from penstock.operators.base import CheckContext, Checked, ColumnName, Fault, Names, Process, RunContext
from penstock.operators.column_checks import frame, is_a, unknown

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_PERCENTILES = {"p01": 0.01, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p99": 0.99}
_NUMBERS = ("mean", "std", "min", *_PERCENTILES, "max")
_ASSOCIATION = ("auc", "iv", "ks", "mutual_information")
#: Longer values are cut in `top`: it is for reading.
_SHOWN = 80


class Stats(Process):
    """Describes columns, a row each.

    column, type; rows; nulls; nans; distinct (null not counted, NaN once); mean, std (n - 1), min, p01 p25 p50 p75
    p99 (exact, linear between neighbours), max of numbers, over values that are neither null nor NaN (booleans count
    as 0 and 1); lowest and highest of strings, dates and timestamps; top: the most frequent values with their counts
    as JSON, `[["a", 12], ["b", 7]]`, ties in value order. Lists and structs have rows and nulls only.
    With `label` (0/1, -1/1 or bool; rows without one are left out): auc of the values as a score (numbers only; ties
    count half), ks, the greatest distance between the two classes' distribution functions, iv and mutual_information
    over bins. Undefined is null. Errors: other labels. Reads its frame once (it ends a stage), then needs memory for
    one column at a time.
    """

    type: ClassVar[str] = "stats"
    example: ClassVar[str] = '<process name="looks" type="stats" from="clicks" columns="price city" label="label"/>'

    columns: Names = Field((), description="which columns; default: all")
    top: NonNegativeInt = Field(10, description="how many of the most frequent values to show")
    label: ColumnName = Field("", description="0/1, -1/1 or bool: what the columns should tell")

    def staged(self) -> bool:
        return True

    def check(self, inputs: Mapping[str, Info], context: CheckContext) -> Checked:
        schema = frame(inputs[self.from_])
        faults = unknown(self.columns, schema, "columns")
        if self.label:
            faults += unknown([self.label], schema, "label") + _label_faults(self.label, schema)
        return Checked(
            {"": Schema(tuple(Column(n, t) for n, t in _result_types(bool(self.label)).items()))}, tuple(faults)
        )

    def run(self, inputs: Mapping[str, Any], context: RunContext) -> pl.DataFrame:
        import polars as pl

        found: pl.LazyFrame = inputs[self.from_]
        schema = frame(context.info(self.from_))
        names = list(self.columns or (n for n in schema.names if n != self.label))
        needed = list(dict.fromkeys([*names, *([self.label] if self.label else [])]))
        file = context.scratch / "stats.parquet"
        context.collect(found.select(needed).sink_parquet(file, compression="lz4", statistics=False, lazy=True))
        aside = pl.scan_parquet(file)
        labels = _labels(aside, self.label, context) if self.label else None
        described = []
        for done, name in enumerate(names):
            context.progress(f"describing '{name}'", done, len(names))
            column = schema.get(name)
            type_ = column.type if column else None
            values = context.collect(aside.select(name)).to_series().rechunk()
            row: dict[str, Any] = {"column": name, "type": str(type_), **_described(values, type_, self.top)}
            if labels is not None:
                row |= association(values, labels)
            described.append(row)
        made = pl.DataFrame(described, schema=_polars_types(bool(self.label)))
        rows = [{**row, "top": _readable(row["top"])}.values() for row in made.iter_rows(named=True)]
        title = f"Columns of {self.from_}"
        context.show({"kind": "table", "title": title, "columns": made.columns, "rows": [list(r) for r in rows]})
        if labels is not None:
            _show_association(made, context, self.label)
        return made


def _label_faults(label: str, schema: Schema) -> list[Fault]:
    import pyarrow as pa

    column = schema.get(label)
    if column is None or column.type is None or is_a(column.type, "number") or pa.types.is_boolean(column.type):
        return []
    return [Fault("OPER111", f"label: '{label}' is {column.type}, not 0/1, -1/1 or bool", "derive one first")]


def _result_types(labelled: bool) -> dict[str, pa.DataType]:
    import pyarrow as pa

    types: dict[str, pa.DataType] = {"column": pa.string(), "type": pa.string()}
    types |= dict.fromkeys(("rows", "nulls", "nans", "distinct"), pa.int64())
    types |= dict.fromkeys(_NUMBERS, pa.float64())
    types |= dict.fromkeys(("lowest", "highest", "top"), pa.string())
    return types | (dict.fromkeys(_ASSOCIATION, pa.float64()) if labelled else {})


def _polars_types(labelled: bool) -> dict[str, Any]:
    from penstock.operators.join_keys import polars_type

    return {name: polars_type(type_) for name, type_ in _result_types(labelled).items()}


def _labels(aside: pl.LazyFrame, label: str, context: RunContext) -> pl.Series:
    labels = binary_label(context.collect(aside.select(label)).to_series().rechunk())
    if isinstance(labels, str):
        said = f"stats: label '{label}' holds {labels}, and must hold 0 and 1, -1 and 1, or true and false"
        raise DataError(said, "derive a label with two values first", "OPER111")
    return labels


def _described(values: pl.Series, type_: pa.DataType | None, top: int) -> dict[str, Any]:
    """One column's row. `values` has one chunk, so sums do not depend on the number of threads."""
    import polars as pl

    row: dict[str, Any] = {"rows": values.len(), "nulls": values.null_count(), "nans": 0}
    if values.dtype.is_nested() or values.dtype == pl.Object:
        return row
    if values.dtype.is_float():
        row["nans"] = int(values.is_nan().sum())
    present = values.drop_nulls()
    counts = present.value_counts(name="__count") if present.len() else None
    row["distinct"] = counts.height if counts is not None else 0
    row["top"] = _top(counts, values.name, top)
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        row |= _numbers(present)
    elif counts is not None:
        texts = counts[values.name]
        if isinstance(values.dtype, pl.Categorical | pl.Enum):
            texts = texts.cast(pl.String)
        if values.dtype != pl.Binary:
            row |= {"lowest": _text(texts.min()), "highest": _text(texts.max())}
    return row


def _numbers(present: pl.Series) -> dict[str, float | None]:
    import polars as pl

    numbers = present.cast(pl.Float64).drop_nans()
    if not numbers.len():
        return {}
    numbers = numbers.sort()
    row: dict[str, Any] = {"mean": numbers.mean(), "std": numbers.std(), "min": numbers[0], "max": numbers[-1]}
    return row | {name: numbers.quantile(at, "linear") for name, at in _PERCENTILES.items()}


def _top(counts: pl.DataFrame | None, name: str, top: int) -> str:
    if counts is None:
        return "[]"
    import polars as pl

    coded = isinstance(counts.schema[name], pl.Categorical | pl.Enum)
    by = pl.col(name).cast(pl.String) if coded else pl.col(name)
    first = counts.sort([pl.col("__count"), by], descending=[True, False]).head(top)
    return json.dumps([[_json(value), count] for value, count in first.iter_rows()], ensure_ascii=False)


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, bool | int) else _text(value)


def _text(value: Any) -> str:
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _readable(top: str | None) -> str:
    """`top` for the eye: the value, then how often."""
    return " · ".join(f"{value} {count:,}" for value, count in json.loads(top or "[]"))


def _show_association(made: pl.DataFrame, context: RunContext, label: str) -> None:
    ranked = made.drop_nulls("iv").sort("iv", descending=True)
    context.show(
        {
            "kind": "bar",
            "title": f"What each column says about {label}",
            "text": "information value over ten bins of equal size",
            "labels": ranked["column"].to_list(),
            "values": ranked["iv"].to_list(),
        }
    )
