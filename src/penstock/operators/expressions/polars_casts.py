"""Types in Polars: the dtype of each of ours, columns brought to them, and `cast` with the contract's rules."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from penstock.operators.expressions.literals import DATE_PATTERN, TIMESTAMP_PATTERN
from penstock.operators.expressions.types import (
    BIGINT,
    BOOL,
    BY_NAME,
    DATE,
    DOUBLE,
    NULL,
    STRING,
    TIMESTAMP,
    canonical,
    is_list,
)  # fmt: skip

DTYPES: dict[pa.DataType, pl.DataType] = {
    NULL: pl.Null(), BOOL: pl.Boolean(), BIGINT: pl.Int64(), DOUBLE: pl.Float64(), STRING: pl.String(),
    DATE: pl.Date(), TIMESTAMP: pl.Datetime("us"),
}  # fmt: skip


def dtype(kind: pa.DataType) -> pl.DataType:
    """The Polars dtype of a canonical type."""
    if is_list(kind):
        return pl.List(dtype(kind.value_type))
    return DTYPES[kind]


def bring(expr: pl.Expr, source: pa.DataType | None, want: pa.DataType) -> pl.Expr:
    """A value of Arrow type `source` as a value of the canonical type `want`; no value is lost but by rounding."""
    if source is None or source == want:
        return expr
    if is_list(want):
        if source == NULL:
            return expr.cast(dtype(want))
        inner = bring(pl.element(), source.value_type, want.value_type)
        if pa.types.is_fixed_size_list(source):
            expr = expr.arr.to_list()
        return expr if source.value_type == want.value_type else expr.list.eval(inner)
    narrow = canonical(source)
    if narrow != source:
        expr = _to_canonical(expr, source, narrow)
    if narrow == want or want not in DTYPES:
        return expr
    return expr.cast(dtype(want))


def _to_canonical(expr: pl.Expr, source: pa.DataType, narrow: pa.DataType) -> pl.Expr:
    if pa.types.is_uint64(source):
        return expr.reinterpret(signed=True)  # same bits: what engines without unsigned integers hold
    if narrow == TIMESTAMP:
        if source.tz is not None:
            expr = expr.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        if source.unit == "ns":
            # Towards the past, also before 1970: a cast of the unit would cut towards zero.
            return expr.dt.timestamp("ns").floordiv(1000).cast(pl.Datetime("us"))
        return expr.dt.cast_time_unit("us")
    return expr.cast(dtype(narrow))


def cast(expr: pl.Expr, source: pa.DataType | None, to: str) -> pl.Expr:
    """`cast(value as to)` of a canonical type; what does not fit is null."""
    if source is None or source == NULL:
        return expr.cast(dtype(BY_NAME[to]))
    match to:
        case "bool":
            return _to_bool(expr, source)
        case "bigint":
            return expr.cast(pl.Int64, strict=False)
        case "double":
            return expr.cast(pl.Float64, strict=False)
        case "string":
            return to_string(expr, source)
        case "date":
            return text_to_date(expr) if source == STRING else expr.cast(pl.Date)
        case _:
            return text_to_timestamp(expr) if source == STRING else expr.cast(pl.Datetime("us"))


def _to_bool(expr: pl.Expr, source: pa.DataType) -> pl.Expr:
    if source == BOOL:
        return expr
    if source == STRING:
        text = expr.str.to_lowercase()
        return pl.when(text == "true").then(pl.lit(True)).when(text == "false").then(pl.lit(False))
    return expr != 0


def to_string(expr: pl.Expr, source: pa.DataType) -> pl.Expr:
    """Numbers in their shortest form, dates as YYYY-MM-DD, timestamps as YYYY-MM-DD HH:MM:SS[.ffffff]."""
    if source == BOOL:
        return pl.when(expr).then(pl.lit("true")).when(~expr).then(pl.lit("false"))
    if source == DATE:
        return expr.dt.strftime("%Y-%m-%d")
    if source == TIMESTAMP:
        whole = expr.dt.strftime("%Y-%m-%d %H:%M:%S")
        return pl.when(expr.dt.microsecond() == 0).then(whole).otherwise(expr.dt.strftime("%Y-%m-%d %H:%M:%S%.6f"))
    return expr.cast(pl.String)


def text_to_date(text: pl.Expr) -> pl.Expr:
    """YYYY-MM-DD and nothing else."""
    return pl.when(text.str.contains(DATE_PATTERN)).then(text).str.to_date("%Y-%m-%d", strict=False)


def text_to_timestamp(text: pl.Expr) -> pl.Expr:
    """What `literals.timestamp_literal` reads: the parts are cut out by position, since the pattern fixes them."""
    good = pl.when(text.str.contains(TIMESTAMP_PATTERN)).then(text)
    day = text_to_date(good.str.slice(0, 10)).cast(pl.Datetime("us"))
    hour, minute, second = (
        good.str.slice(start, 2).cast(pl.Int64, strict=False).fill_null(0) for start in (11, 14, 17)
    )
    # Seconds are there only if a colon stands before them ("12:30+02:00" has a zone instead).
    second = pl.when(good.str.slice(16, 1) == ":").then(second).otherwise(pl.lit(0))
    fraction = good.str.extract(r"\.([0-9]{1,9})", 1).str.pad_end(6, "0").str.slice(0, 6)
    offset = good.str.extract_groups(r"([+-])([0-9]{2}):([0-9]{2})$").struct
    minutes = offset.field("2").cast(pl.Int64) * 60 + offset.field("3").cast(pl.Int64)
    shift = (pl.when(offset.field("1") == "-").then(-minutes).otherwise(minutes)).fill_null(0)
    micros = ((hour * 60 + minute - shift) * 60 + second) * 1_000_000 + fraction.cast(pl.Int64).fill_null(0)
    valid = (hour < 24) & (minute < 60) & (second < 60)
    return pl.when(valid).then(day + micros.cast(pl.Duration("us")))
