"""The expression language of `where`, `columns`, `on`, `by` and `sql`: one SQL subset, the same on every engine.

In: texts and column schemas. Out: immutable trees, types, faults, Polars expressions.
Read `tree.py` first, then `functions.py` (what exists), `typed.py` (types and faults), `polars_tree.py` (meaning).

    parse_expression(text) -> Expr                       parse_columns("a, b as c, x * 2 as y, *") -> tuple[Named, ...]
    parse_order("a desc, b") -> tuple[Order, ...]
    check(expr or text, schema) -> (type, faults)        check_columns(text, schema) -> (schema columns, faults)
    to_polars(expr or text, schema) -> pl.Expr           columns_of(expr), is_aggregate(expr), replace_columns(expr, f)
    parse_select(text) -> sqlglot Select, whose scalar parts go through from_sqlglot(node, text) -> Expr

Parsing raises `ExpressionError` (its `fault()` is what a check returns); `check` never raises. With `by=(...)` (the
grouping columns, maybe none) `check`, `check_columns` and `to_polars` allow aggregates: a value a group, not a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.operators.expressions.checks import check, check_columns, check_expression, is_aggregate
from penstock.operators.expressions.parse import (
    from_sqlglot,
    named_from_sqlglot,
    order_of,
    parse_columns,
    parse_expression,
    parse_order,
    parse_select,
)
from penstock.operators.expressions.problems import ExpressionError
from penstock.operators.expressions.tree import (
    Call,
    Cast,
    Column,
    Expr,
    Literal,
    Named,
    Order,
    Star,
    columns_of,
    rebuilt,
    replace_columns,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    import polars as pl

    from penstock.data.schema import Schema


def to_polars(expr: Expr | str, schema: Schema, *, by: Collection[str] | None = None) -> pl.Expr:
    """Translate against the real column types; see `polars_tree.py`, which is imported (with Polars) only here."""
    from penstock.operators.expressions.polars_tree import to_polars as translate

    return translate(expr, schema, by=by)


__all__ = [
    "Call", "Cast", "Column", "Expr", "ExpressionError", "Literal", "Named", "Order", "Star", "check",
    "check_columns", "check_expression", "columns_of", "from_sqlglot", "is_aggregate", "named_from_sqlglot", "order_of",
    "parse_columns", "parse_expression", "parse_order", "parse_select", "rebuilt", "replace_columns", "to_polars",
    "walk",
]  # fmt: skip
