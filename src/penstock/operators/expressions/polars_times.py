"""Dates and timestamps in Polars. Everything is UTC; results outside the years 1 to 9999 are null."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import polars as pl

from penstock.operators.expressions.functions import EPOCH_UNITS
from penstock.operators.expressions.patterns import escape_regex
from penstock.operators.expressions.tree import Literal
from penstock.operators.expressions.typed import Typed
from penstock.operators.expressions.types import DATE, DOUBLE

Args = list[pl.Expr]
Builder = Callable[[Args, Typed], pl.Expr]

_EVERY = {"year": "1y", "quarter": "1q", "month": "1mo", "week": "1w", "day": "1d", "hour": "1h", "minute": "1m",
          "second": "1s"}  # fmt: skip
_MICROS = {"second": 10**6, "minute": 60 * 10**6, "hour": 3600 * 10**6, "day": 86400 * 10**6, "week": 7 * 86400 * 10**6}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
#: Microseconds of 0001-01-01 and of the last one of 9999.
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999


def _text(typed: Typed, at: int, default: str = "") -> str:
    if at >= len(typed.args):
        return default
    return str(cast(Literal, typed.args[at].expr).value)


def _part(method: str) -> Builder:
    def build(args: Args, typed: Typed) -> pl.Expr:
        part: pl.Expr = getattr(args[0].dt, method)()
        return part.cast(pl.Int64)

    return build


def _trunc(args: Args, typed: Typed) -> pl.Expr:
    unit = _text(typed, 0)
    if typed.wants[1] == DATE and unit in ("day", "hour", "minute", "second"):
        return args[1]
    return args[1].dt.truncate(_EVERY[unit])


def _in_years(micros: pl.Expr) -> pl.Expr:
    """Microseconds since the epoch as a timestamp, null outside the years 1 to 9999."""
    return pl.when(micros.is_between(FIRST, LAST)).then(micros).cast(pl.Datetime("us"))


def _add(args: Args, typed: Typed) -> pl.Expr:
    unit, n, x = _text(typed, 0), args[1], args[2]
    is_date = typed.wants[2] == DATE
    if unit in _MICROS:
        step = _MICROS[unit]
        n = pl.when(n.is_between(-(2 * LAST // step), 2 * LAST // step)).then(n)  # beyond, the product would wrap
        found = _in_years(x.cast(pl.Datetime("us")).dt.timestamp("us") + n * step)
        return found.cast(pl.Date) if is_date else found
    n = pl.when(n.is_between(-120_000, 120_000)).then(n) * _MONTHS[unit]
    months = x.dt.year().cast(pl.Int64) * 12 + x.dt.month().cast(pl.Int64) - 1 + n
    year, month = months // 12, months % 12 + 1
    inside = year.is_between(1, 9999)
    start = pl.date(pl.when(inside).then(year), month, 1)
    day = pl.min_horizontal(x.dt.day().cast(pl.Int64), start.dt.month_end().dt.day().cast(pl.Int64))
    moved = pl.when(inside & n.is_not_null()).then(pl.date(pl.when(inside).then(year), month, day))
    if is_date:
        return moved
    return moved.cast(pl.Datetime("us")) + (x - x.dt.truncate("1d"))


def _diff(args: Args, typed: Typed) -> pl.Expr:
    unit, start, end = _text(typed, 0), args[1], args[2]
    if unit in _MONTHS:
        return _month_number(end, unit) - _month_number(start, unit)
    step = _MICROS[unit]
    # Weeks start on Mondays, and 1970-01-01 was a Thursday.
    shift = 3 * _MICROS["day"] if unit == "week" else 0
    count = [(x.cast(pl.Datetime("us")).dt.timestamp("us") + shift) // step for x in (end, start)]
    return count[0] - count[1]


def _month_number(x: pl.Expr, unit: str) -> pl.Expr:
    months = x.dt.year().cast(pl.Int64) * 12 + x.dt.month().cast(pl.Int64) - 1
    return months // _MONTHS[unit]


def _make_date(args: Args, typed: Typed) -> pl.Expr:
    year, month, day = args
    start_ok = year.is_between(1, 9999) & month.is_between(1, 12)
    start = pl.date(pl.when(start_ok).then(year), pl.when(start_ok).then(month), 1)
    last = start.dt.month_end().dt.day().cast(pl.Int64)
    valid = start_ok & day.is_between(1, last)
    return pl.when(valid).then(pl.date(pl.when(valid).then(year), pl.when(valid).then(month), pl.when(valid).then(day)))


def _epoch(args: Args, typed: Typed) -> pl.Expr:
    return args[0].cast(pl.Datetime("us")).dt.timestamp("us") // EPOCH_UNITS[_text(typed, 1, "s")]


def _from_epoch(args: Args, typed: Typed) -> pl.Expr:
    scale = EPOCH_UNITS[_text(typed, 1, "s")]
    if typed.wants[0] == DOUBLE:
        micros = (args[0] * float(scale)).round(0, mode="half_away_from_zero").cast(pl.Int64, strict=False)
    else:
        micros = pl.when(args[0].is_between(FIRST // scale, LAST // scale)).then(args[0]) * scale
    return _in_years(micros)


def _strftime(args: Args, typed: Typed) -> pl.Expr:
    # %f is six digits here; Polars' %f would be nanoseconds.
    parts = _text(typed, 1).split("%%")
    return args[0].cast(pl.Datetime("us")).dt.strftime("%%".join(part.replace("%f", "%6f") for part in parts))


_WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}


def _strptime(args: Args, typed: Typed) -> pl.Expr:
    """A pattern with one group a code checks the width; the numbers then make the date and the time."""
    written, pattern, codes, at = _text(typed, 1), "", [], 0
    while at < len(written):
        if written[at] == "%":
            code = written[at + 1]
            at += 1
            if code == "%":
                pattern += "%"
            else:
                codes.append(code)
                pattern += f"([0-9]{{{_WIDTHS[code]}}})"
        else:
            pattern += escape_regex(written[at])
        at += 1
    groups = args[0].str.extract_groups(f"\\A{pattern}\\z").struct
    number: dict[str, Any] = {code: groups.field(str(index + 1)).cast(pl.Int64) for index, code in enumerate(codes)}
    day = _make_date([number["Y"], number["m"], number["d"]], typed).cast(pl.Datetime("us"))
    zero = pl.lit(0, dtype=pl.Int64)
    hour, minute, second = (number.get(code, zero) for code in "HMS")
    valid = (hour < 24) & (minute < 60) & (second < 60)
    return pl.when(valid).then(day + (((hour * 60 + minute) * 60 + second) * 1_000_000).cast(pl.Duration("us")))


SCALAR: dict[str, Builder] = {
    "year": _part("year"),
    "quarter": _part("quarter"),
    "month": _part("month"),
    "week": _part("week"),
    "day": _part("day"),
    "weekday": lambda args, typed: args[0].dt.weekday().cast(pl.Int64) - 1,
    "day_of_year": _part("ordinal_day"),
    "hour": _part("hour"),
    "minute": _part("minute"),
    "second": _part("second"),
    "microsecond": _part("microsecond"),
    "date_trunc": _trunc,
    "date_add": _add,
    "date_diff": _diff,
    "make_date": _make_date,
    "epoch": _epoch,
    "from_epoch": _from_epoch,
    "strftime": _strftime,
    "strptime": _strptime,
}
