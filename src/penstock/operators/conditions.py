"""`where`: an expression that must be true or false, and rows for which it is null are not meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.data.schema import Schema
from penstock.operators.base import Fault

if TYPE_CHECKING:
    import polars as pl


def condition_faults(text: str, schema: Schema, field: str) -> list[Fault]:
    """What is wrong with the expression, and OPER102 where it is no condition."""
    import pyarrow as pa

    from penstock.operators.expressions import check_expression

    type_, faults = check_expression(text, schema)
    if faults or type_ is None or pa.types.is_boolean(type_) or pa.types.is_null(type_):
        return list(faults)
    hint = 'compare it with something: "price > 0", "city is not null"'
    return [Fault("OPER102", f"{field}: '{text}' is {type_}, not true or false", hint)]


def condition(text: str, schema: Schema) -> pl.Expr:
    """The expression as a filter, false where it is null."""
    from penstock.operators.expressions import to_polars

    return to_polars(text, schema).fill_null(value=False)
