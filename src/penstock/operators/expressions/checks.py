"""What a check asks of an expression or a column list: its types, and all that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Collection

from penstock.data.schema import Column as SchemaColumn
from penstock.data.schema import Schema
from penstock.operators.base import Fault
from penstock.operators.expressions.functions import AGGREGATES
from penstock.operators.expressions.parse import parse_columns, parse_expression
from penstock.operators.expressions.problems import ExpressionError
from penstock.operators.expressions.tree import Call, Column, Expr, Star, walk
from penstock.operators.expressions.typed import Checker, Typed
from penstock.operators.expressions.types import Type


def check(
    expr: Expr | str, schema: Schema, *, by: Collection[str] | None = None, text: str = ""
) -> tuple[Type, tuple[Fault, ...]]:
    """The type of the result (None where it cannot be known) and every fault.

    `by`: None for a value a row; the grouping columns (maybe none) for a value a group, where aggregates may stand.
    `text`: the source of a parsed `expr`, so that messages can name positions by line.
    """
    try:
        typed, faults = typing(expr, schema, by=by, text=text)
    except ExpressionError as error:
        return None, (error.fault(),)
    return typed.type, faults


def check_expression(text: str, schema: Schema, *, by: Collection[str] | None = None) -> tuple[Type, tuple[Fault, ...]]:
    """`check` of a text."""
    return check(text, schema, by=by)


def check_columns(
    text: str, schema: Schema, *, by: Collection[str] | None = None
) -> tuple[tuple[SchemaColumn, ...], tuple[Fault, ...]]:
    """The columns that a list makes, with `*` spread out and roles kept where a column only passes through."""
    try:
        entries = parse_columns(text)
    except ExpressionError as error:
        return (), (error.fault(),)
    columns: list[SchemaColumn] = []
    faults: list[Fault] = []
    for entry in entries:
        if isinstance(entry.expr, Star):
            columns += schema.columns
            if by is not None:
                message = "`*` cannot stand in an aggregation: name the columns"
                faults.append(Fault("EXPR014", message, 'e.g. columns="count(*) as n"'))
            continue
        kind, found = check(entry.expr, schema, by=by, text=text)
        faults += found
        passed = schema.get(entry.expr.name) if isinstance(entry.expr, Column) else None
        columns.append(SchemaColumn(entry.name, kind, passed.role if passed else ""))
    counts: dict[str, int] = {}
    for column in columns:
        counts[column.name] = counts.get(column.name, 0) + 1
    for name in [name for name, count in counts.items() if count > 1]:
        faults.append(Fault("EXPR006", f"two columns are called '{name}'", "name one of them otherwise with `as`"))
    return tuple(columns), tuple(faults)


def typing(
    expr: Expr | str, schema: Schema, *, by: Collection[str] | None = None, text: str = ""
) -> tuple[Typed, tuple[Fault, ...]]:
    """The typed tree and every fault. Raises `ExpressionError` where `expr` is a text that cannot be parsed."""
    if isinstance(expr, str):
        text, expr = expr, parse_expression(expr)
    checker = Checker(schema, text)
    typed = checker.visit(expr)
    checker.aggregation(expr, by)
    return typed, tuple(checker.faults)


def is_aggregate(expr: Expr) -> bool:
    """Whether an aggregate stands anywhere in it."""
    return any(isinstance(node, Call) and node.name in AGGREGATES for node in walk(expr))
