"""Each function of the table as a Polars expression. Arguments arrive in the types that the check asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import polars as pl
import pyarrow as pa

from penstock.operators.expressions import polars_exact
from penstock.operators.expressions import polars_times as times
from penstock.operators.expressions.tree import Literal
from penstock.operators.expressions.typed import Typed
from penstock.operators.expressions.types import DOUBLE, NULL

Args = list[pl.Expr]


def constant(typed: Typed, at: int, default: Any = None) -> Any:
    """The value of a literal argument, or the default where it is left out."""
    if at >= len(typed.args):
        return default
    return cast(Literal, typed.args[at].expr).value


# --- choice ------------------------------------------------------------------------------------------------------


def _nullif(args: Args, typed: Typed) -> pl.Expr:
    a, b = args
    return pl.when((a == b).fill_null(value=False)).then(None).otherwise(a)


def _extreme(greatest: bool) -> Callable[[Args, Typed], pl.Expr]:
    def build(args: Args, typed: Typed) -> pl.Expr:
        found = args[0]
        for arg in args[1:]:
            better = arg > found if greatest else arg < found
            found = pl.when(found.is_null() | better).then(pl.coalesce(arg, found)).otherwise(found)
        return found

    return build


# --- numbers -----------------------------------------------------------------------------------------------------


def _doubles_only(build: Callable[[pl.Expr], pl.Expr]) -> Callable[[Args, Typed], pl.Expr]:
    """Rounding leaves whole numbers as they are."""
    return lambda args, typed: build(args[0]) if typed.wants[0] == DOUBLE else args[0]


def _round(args: Args, typed: Typed) -> pl.Expr:
    x = args[0]
    digits = constant(typed, 1, 0)
    if typed.wants[0] != DOUBLE:
        return x
    if digits == 0:
        return x.round(0, mode="half_away_from_zero")
    scale = float(10**digits)
    scaled = x * scale
    # Beyond 2^52 a double has no fraction to round, and the product may overflow.
    whole = scaled.is_nan() | (scaled.abs() >= 2.0**52)
    return pl.when(whole).then(x).otherwise(scaled.round(0, mode="half_away_from_zero") / scale)


def _sign(args: Args, typed: Typed) -> pl.Expr:
    x = args[0]
    if typed.wants[0] == DOUBLE:
        return pl.when(x.is_nan()).then(x).when(x > 0).then(1.0).when(x < 0).then(-1.0).when(x == 0).then(0.0)
    return pl.when(x > 0).then(pl.lit(1, dtype=pl.Int64)).when(x < 0).then(-1).when(x == 0).then(0)


Build = Callable[[pl.Expr], pl.Expr]


def _where(valid: Build, build: Build) -> Callable[[Args, Typed], pl.Expr]:
    """Null outside the function's domain; NaN stays NaN."""
    return lambda args, typed: pl.when(valid(args[0]) | args[0].is_nan()).then(build(args[0]))


def _power(args: Args, typed: Typed) -> pl.Expr:
    x, y = args
    no_answer = ((x < 0) & x.is_finite() & y.is_finite() & (y != y.floor())) | ((x == 0) & (y < 0))
    return pl.when(~no_answer).then(x.pow(y))


# --- strings -----------------------------------------------------------------------------------------------------


def _strip(method: str) -> Callable[[Args, Typed], pl.Expr]:
    return lambda args, typed: getattr(args[0].str, method)(constant(typed, 1, " ") or None)


def _substr(args: Args, typed: Typed) -> pl.Expr:
    text, start = args[0], args[1]
    size = text.str.len_chars().cast(pl.Int64)
    first = pl.when(start > 0).then(start - 1).when(start == 0).then(0).otherwise(size + start)
    if len(args) == 2:
        return pl.when(start.is_not_null()).then(text.str.slice(first.clip(0)))
    end = first + args[2].clip(0)
    end = pl.when(end < first).then(pl.lit(2**62)).otherwise(end)  # the sum wrapped: as long as it goes
    count = (pl.min_horizontal(end, size) - first.clip(0)).clip(0)
    known = start.is_not_null() & args[2].is_not_null()
    return pl.when(known).then(text.str.slice(pl.min_horizontal(first.clip(0), size), count))


def _left(args: Args, typed: Typed) -> pl.Expr:
    return pl.when(args[1].is_not_null()).then(args[0].str.slice(0, args[1].clip(0)))


def _right(args: Args, typed: Typed) -> pl.Expr:
    text, n = args
    size = text.str.len_chars().cast(pl.Int64)
    keep = pl.min_horizontal(n.clip(0), size)
    return pl.when(n.is_not_null()).then(text.str.slice(size - keep))


def _replace(args: Args, typed: Typed) -> pl.Expr:
    old, new = constant(typed, 1), constant(typed, 2)
    return args[0] if old == "" else args[0].str.replace_all(old, new, literal=True)


def _concat_ws(args: Args, typed: Typed) -> pl.Expr:
    return pl.concat_str(args[1:], separator=constant(typed, 0), ignore_nulls=True)


def _strpos(args: Args, typed: Typed) -> pl.Expr:
    text, part = args[0], constant(typed, 1)
    if part == "":
        return pl.when(text.is_not_null()).then(pl.lit(1, dtype=pl.Int64))
    before = text.str.splitn(part, 2).struct.field("field_0").str.len_chars().cast(pl.Int64)
    return pl.when(text.str.contains(part, literal=True)).then(before + 1).when(text.is_not_null()).then(0)


def _split_part(args: Args, typed: Typed) -> pl.Expr:
    n = constant(typed, 2)
    piece = args[0].str.split(constant(typed, 1)).list.get(n - 1 if n > 0 else n, null_on_oob=True)
    return pl.when(args[0].is_not_null()).then(piece.fill_null(""))


def _pad(method: str) -> Callable[[Args, Typed], pl.Expr]:
    def build(args: Args, typed: Typed) -> pl.Expr:
        size = constant(typed, 1)
        padded: pl.Expr = getattr(args[0].str, method)(size, constant(typed, 2, " "))
        return padded.str.slice(0, size)

    return build


def _repeat(args: Args, typed: Typed) -> pl.Expr:
    n = constant(typed, 1)
    if n == 0:
        return pl.when(args[0].is_not_null()).then(pl.lit(""))
    return pl.concat_str([args[0]] * n, ignore_nulls=False)


# --- lists -------------------------------------------------------------------------------------------------------


def _list_contains(args: Args, typed: Typed) -> pl.Expr:
    values, x = args
    if typed.wants[1] in (None, NULL):
        return pl.lit(None, dtype=pl.Boolean)
    unknown = values.list.eval(pl.element().is_null()).list.any()
    found = values.list.contains(x, nulls_equal=False)
    return pl.when(values.is_null() | x.is_null()).then(None).when(found).then(True).when(~unknown).then(False)


def _list_get(args: Args, typed: Typed) -> pl.Expr:
    values, n = args
    at = pl.when(n > 0).then(n - 1).when(n < 0).then(n)
    inside = (at < values.list.len().cast(pl.Int64)) & (-at <= values.list.len().cast(pl.Int64))
    return pl.when(inside).then(values.list.get(pl.when(inside).then(at).otherwise(0), null_on_oob=True))


def _list_join(args: Args, typed: Typed) -> pl.Expr:
    return args[0].list.join(constant(typed, 1), ignore_nulls=True)


SCALAR: dict[str, Callable[[Args, Typed], pl.Expr]] = {
    "coalesce": lambda args, typed: pl.coalesce(args),
    "ifnull": lambda args, typed: pl.coalesce(args),
    "nullif": _nullif,
    "if": lambda args, typed: pl.when(args[0]).then(args[1]).otherwise(args[2]),
    "greatest": _extreme(True),
    "least": _extreme(False),
    "abs": lambda args, typed: args[0].abs(),
    "sign": _sign,
    "ceil": _doubles_only(lambda x: x.ceil()),
    "floor": _doubles_only(lambda x: x.floor()),
    "trunc": _doubles_only(lambda x: pl.when(x < 0).then(x.ceil()).otherwise(x.floor())),
    "round": _round,
    "sqrt": _where(lambda x: x >= 0, lambda x: x.sqrt()),
    "exp": lambda args, typed: args[0].exp(),
    "ln": _where(lambda x: x > 0, lambda x: x.log()),
    "log10": _where(lambda x: x > 0, polars_exact.log10),
    "log2": _where(lambda x: x > 0, polars_exact.log2),
    "log1p": _where(lambda x: x > -1, lambda x: x.log1p()),
    "power": _power,
    "is_nan": lambda args, typed: args[0].is_nan(),
    "is_finite": lambda args, typed: args[0].is_finite(),
    "length": lambda args, typed: args[0].str.len_chars().cast(pl.Int64),
    "lower": lambda args, typed: args[0].str.to_lowercase(),
    "upper": lambda args, typed: args[0].str.to_uppercase(),
    "trim": _strip("strip_chars"),
    "ltrim": _strip("strip_chars_start"),
    "rtrim": _strip("strip_chars_end"),
    "substr": _substr,
    "left": _left,
    "right": _right,
    "replace": _replace,
    "concat": lambda args, typed: pl.concat_str(args, ignore_nulls=False),
    "concat_ws": _concat_ws,
    "starts_with": lambda args, typed: args[0].str.starts_with(args[1]),
    "ends_with": lambda args, typed: args[0].str.ends_with(args[1]),
    "contains": lambda args, typed: args[0].str.contains(args[1], literal=True),
    "strpos": _strpos,
    "split_part": _split_part,
    "lpad": _pad("pad_start"),
    "rpad": _pad("pad_end"),
    "reverse": lambda args, typed: args[0].str.split("").list.reverse().list.join(""),
    "repeat": _repeat,
    "regexp_like": lambda args, typed: args[0].str.contains(constant(typed, 1)),
    "regexp_extract": lambda args, typed: args[0].str.extract(constant(typed, 1), constant(typed, 2, 0)),
    "regexp_replace": lambda args, typed: args[0].str.replace_all(constant(typed, 1), constant(typed, 2)),
    "list_length": lambda args, typed: args[0].list.len().cast(pl.Int64),
    "list_contains": _list_contains,
    "list_get": _list_get,
    "array": lambda args, typed: pl.concat_list(args),
    "split": lambda args, typed: args[0].str.split(constant(typed, 1)),
    "list_join": _list_join,
    **times.SCALAR,
}


# --- aggregates --------------------------------------------------------------------------------------------------


def _some(x: pl.Expr, found: pl.Expr) -> pl.Expr:
    """Null where no value is left; Polars gives 0 or False for some."""
    return pl.when(x.count() > 0).then(found)


def _count(args: Args, kind: pa.DataType | None, distinct: bool) -> pl.Expr:
    if not args:
        return pl.len().cast(pl.Int64)
    found = args[0].drop_nulls().n_unique() if distinct else args[0].count()
    return found.cast(pl.Int64)


def _min(args: Args, kind: pa.DataType | None, distinct: bool) -> pl.Expr:
    return args[0].min()


def _max(args: Args, kind: pa.DataType | None, distinct: bool) -> pl.Expr:
    # Polars' max skips NaN; ours is greatest.
    return args[0].nan_max() if kind == DOUBLE else args[0].max()


def _spread(method: str) -> Callable[[Args, pa.DataType | None, bool], pl.Expr]:
    def build(args: Args, kind: pa.DataType | None, distinct: bool) -> pl.Expr:
        x = args[0].cast(pl.Float64)
        found: pl.Expr = getattr(x, method)(ddof=1)
        return pl.when(x.count() > 1).then(found)

    return build


AGGREGATE: dict[str, Callable[[Args, pa.DataType | None, bool], pl.Expr]] = {
    "count": _count,
    "count_if": lambda args, kind, distinct: args[0].fill_null(value=False).sum().cast(pl.Int64),
    "sum": lambda args, kind, distinct: _some(args[0], args[0].sum()),
    "avg": lambda args, kind, distinct: args[0].cast(pl.Float64).mean(),
    "min": _min,
    "max": _max,
    "first": lambda args, kind, distinct: args[0].first(),
    "last": lambda args, kind, distinct: args[0].last(),
    "any": lambda args, kind, distinct: _some(args[0], args[0].any()),
    "every": lambda args, kind, distinct: _some(args[0], args[0].all()),
    "stddev": _spread("std"),
    "variance": _spread("var"),
    "median": lambda args, kind, distinct: args[0].cast(pl.Float64).quantile(0.5, "linear"),
    "quantile": lambda args, kind, distinct: args[0].cast(pl.Float64).quantile(args[1], "linear"),
}
