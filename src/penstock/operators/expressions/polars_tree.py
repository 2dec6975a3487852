"""The tree as a Polars expression with the contract's meaning, whatever Polars itself would do.

Only elementwise expressions are built (aggregates aside), so filters are pushed down and everything streams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import Any

import polars as pl
import pyarrow as pa

from penstock.data.schema import Schema
from penstock.operators.expressions.checks import typing
from penstock.operators.expressions.polars_casts import bring, cast, dtype
from penstock.operators.expressions.polars_functions import AGGREGATE, SCALAR
from penstock.operators.expressions.problems import ExpressionError
from penstock.operators.expressions.tree import Call, Cast, Column, Expr, Literal
from penstock.operators.expressions.typed import Typed, literal_type
from penstock.operators.expressions.types import BIGINT, BOOL, DOUBLE, NULL


def to_polars(expr: Expr | str, schema: Schema, *, by: Collection[str] | None = None) -> pl.Expr:
    """Translate against the real column types. Raises `ExpressionError` with the first fault that `check` finds.

    With `by` (grouping columns, maybe none) the result belongs into `group_by(...).agg(...)` or `select(...)`.
    """
    typed, faults = typing(expr, schema, by=by)
    if faults:
        raise ExpressionError(faults[0].code, faults[0].message, faults[0].hint)
    return translate(typed)


def translate(typed: Typed) -> pl.Expr:
    """The Polars expression of a typed tree without faults."""
    match typed.expr:
        case Literal(value=value):
            return pl.lit(value, dtype=dtype(literal_type(value)))
        case Column(name=name):
            return pl.col(name)
        case Cast(to=to):
            (arg,) = _arguments(typed)
            return cast(arg, typed.wants[0], to)
        case Call(name="case"):
            return _case(_arguments(typed))
        case Call(name="in"):
            return _in(typed)
        case Call(name=name, distinct=distinct):
            args = _arguments(typed)
            if name in AGGREGATE:
                return AGGREGATE[name](args, typed.wants[0] if typed.wants else None, distinct)
            if name == "like":
                return _like(args, typed)
            operator = OPERATORS.get(name)
            return SCALAR[name](args, typed) if operator is None else operator(args, _meeting(typed))
    raise AssertionError(f"not translated: {typed.expr}")


def _arguments(typed: Typed) -> list[pl.Expr]:
    return [
        translate(arg) if want is None else bring(translate(arg), arg.type, want)
        for arg, want in zip(typed.args, typed.wants, strict=True)
    ]


def _meeting(typed: Typed) -> pa.DataType | None:
    return next((want for want in typed.wants if want is not None), None)


# --- operators ---------------------------------------------------------------------------------------------------


def _balanced(args: Sequence[pl.Expr], join: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> pl.Expr:
    """Join an associative chain as a balanced tree: a thousand terms are ten levels deep."""
    parts = list(args)
    while len(parts) > 1:
        pairs = [join(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = [*pairs, parts[-1]] if len(parts) % 2 else pairs
    return parts[0]


def _chain(join: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Callable[[list[pl.Expr], Any], pl.Expr]:
    def build(args: list[pl.Expr], kind: Any) -> pl.Expr:
        # Sums of doubles depend on their order, so only wrapping integers may be regrouped.
        return reduce(join, args) if kind == DOUBLE else _balanced(args, join)

    return build


def _minus(args: list[pl.Expr], kind: Any) -> pl.Expr:
    return -args[0] if len(args) == 1 else args[0] - args[1]


def _divide(args: list[pl.Expr], kind: Any) -> pl.Expr:
    a, b = args
    # Polars divides a column by a single value by multiplying with its reciprocal, which is an ulp off (10 / 3); a
    # divisor that is a column of its own is divided by, as IEEE 754 says.
    column = b + a.is_null().cast(pl.Float64) * 0.0
    return pl.when(b != 0.0).then(a / column)


def whole_division(args: list[pl.Expr], kind: Any = None) -> pl.Expr:
    """Towards zero: Polars' `//` rounds down, so add one where the signs differ and something is left over."""
    a, b = args
    down = a // b
    return pl.when(b != 0).then(down + ((a % b != 0) & ((a < 0) != (b < 0))).cast(pl.Int64))


def remainder(args: list[pl.Expr], kind: Any) -> pl.Expr:
    """With the sign of the dividend: Polars' `%` takes the divisor's."""
    a, b = args
    if kind == DOUBLE:
        from penstock.operators.expressions.polars_exact import fmod

        return fmod(a, b)
    left = a % b
    return pl.when(b != 0).then(left - pl.when((left != 0) & ((a < 0) != (b < 0))).then(b).otherwise(pl.lit(0)))


def _between(args: list[pl.Expr], kind: Any) -> pl.Expr:
    return (args[0] >= args[1]) & (args[0] <= args[2])


def _case(args: list[pl.Expr]) -> pl.Expr:
    chain: Any = pl
    for condition, value in zip(args[:-1:2], args[1::2], strict=False):
        chain = chain.when(condition).then(value)
    found: pl.Expr = chain.otherwise(args[-1])
    return found


def _in(typed: Typed) -> pl.Expr:
    """Constants go through a hash set; the rest are equalities. A null among the values makes a miss unknown."""
    args = _arguments(typed)
    kind = _meeting(typed)
    value = args[0]
    constants, computed = [], []
    holds_null = False
    for node, arg in zip(typed.args[1:], args[1:], strict=True):
        if isinstance(node.expr, Literal):
            if node.expr.value is None:
                holds_null = True
            else:
                constants.append(node.expr.value)
        else:
            computed.append(arg)
    if kind is None or kind == NULL:
        return pl.lit(None, dtype=pl.Boolean)
    tests = [value == arg for arg in computed]
    if constants:
        if kind == DOUBLE:
            constants = [float(c) for c in constants]  # type: ignore[arg-type]
        series = pl.Series(constants, dtype=pl.Int64 if kind == BIGINT else None)
        if kind not in (BIGINT, DOUBLE, BOOL):
            series = series.cast(dtype(kind))
        tests.append(value.is_in(series.implode()))
    if holds_null:
        tests.append(pl.lit(None, dtype=pl.Boolean))
    return _balanced(tests, lambda a, b: a | b)


def _like(args: list[pl.Expr], typed: Typed) -> pl.Expr:
    from penstock.operators.expressions.patterns import like_to_regex

    written = [arg.expr.value for arg in typed.args[1:] if isinstance(arg.expr, Literal)]
    if None in written:
        return pl.lit(None, dtype=pl.Boolean)
    return args[0].str.contains(like_to_regex(*map(str, written)))


OPERATORS: dict[str, Callable[[list[pl.Expr], Any], pl.Expr]] = {
    "+": _chain(lambda a, b: a + b),
    "-": _minus,
    "*": _chain(lambda a, b: a * b),
    "/": _divide,
    "div": whole_division,
    "%": remainder,
    "||": lambda args, kind: pl.concat_str(args, ignore_nulls=False),
    "and": lambda args, kind: _balanced(args, lambda a, b: a & b),
    "or": lambda args, kind: _balanced(args, lambda a, b: a | b),
    "not": lambda args, kind: ~args[0],
    "=": lambda args, kind: args[0] == args[1],
    "<>": lambda args, kind: args[0] != args[1],
    "<": lambda args, kind: args[0] < args[1],
    "<=": lambda args, kind: args[0] <= args[1],
    ">": lambda args, kind: args[0] > args[1],
    ">=": lambda args, kind: args[0] >= args[1],
    "between": _between,
    "is distinct from": lambda args, kind: args[0].ne_missing(args[1]),
    "is not distinct from": lambda args, kind: args[0].eq_missing(args[1]),
    "is null": lambda args, kind: args[0].is_null(),
    "is not null": lambda args, kind: args[0].is_not_null(),
    "is true": lambda args, kind: args[0].fill_null(value=False),
    "is false": lambda args, kind: (~args[0]).fill_null(value=False),
}
