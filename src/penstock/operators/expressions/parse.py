"""Texts to trees. Each distinct text is parsed once a process; sqlglot is imported when the first one is."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from penstock.operators.expressions.problems import ExpressionError
from penstock.operators.expressions.tree import Column, Expr, Named, Order, Star

if TYPE_CHECKING:
    from types import ModuleType

    from sqlglot import exp


@cache
def _dialect() -> ModuleType:
    from penstock.operators.expressions import dialect

    return dialect


def _convert(node: Any, text: str) -> Expr:
    from penstock.operators.expressions.conversion import convert

    return convert(node, text)


@lru_cache(maxsize=8192)
def parse_expression(text: str) -> Expr:
    """One scalar expression. Raises `ExpressionError` (EXPR001, 002, 004, 007, 008, 016)."""
    node = _dialect().parsed(text, lambda parser: parser._parse_disjunction())
    found: Expr = _convert(node, text)
    if isinstance(found, Star):
        raise ExpressionError("EXPR002", "`*` is no value", "name a column", text, found.at)
    return found


@lru_cache(maxsize=8192)
def parse_columns(text: str) -> tuple[Named, ...]:
    """`a, b as c, x * 2 as y, *`. Raises `ExpressionError`, also for an entry without a name (EXPR005)."""
    nodes = _dialect().parsed(text, lambda parser: parser._parse_csv(parser._parse_expression) or None)
    return tuple(_named(node, text) for node in nodes)


@lru_cache(maxsize=8192)
def parse_order(text: str) -> tuple[Order, ...]:
    """`a desc, b, c nulls first`."""
    nodes = _dialect().parsed(text, lambda parser: parser._parse_csv(parser._parse_ordered) or None)
    return tuple(order_of(node, text) for node in nodes)


def parse_select(text: str) -> exp.Select:
    """A whole SELECT as sqlglot's tree, in the same dialect: give its scalar parts to `from_sqlglot`."""
    found: exp.Select = _dialect().parsed(text, lambda parser: parser._parse_statement())
    return found


def from_sqlglot(node: exp.Expr, text: str = "") -> Expr:
    """Translate a scalar part of a `parse_select` tree; `text` is the whole source, for positions and date literals."""
    found: Expr = _convert(node, text)
    return found


def named_from_sqlglot(node: exp.Expr, text: str = "") -> Named:
    """Translate one entry of a SELECT list, with its name."""
    return _named(node, text)


def order_of(node: Any, text: str = "") -> Order:
    """Translate one key of an `order by`."""
    args = node.args
    return Order(_convert(node.this, text), bool(args.get("desc")), bool(args.get("nulls_first")))


def _named(node: Any, text: str) -> Named:
    from sqlglot import exp

    if isinstance(node, exp.Alias):
        alias = node.args["alias"]
        start = (alias._meta or {}).get("start", -1)
        if text and start >= 0 and not text[:start].rstrip().lower().endswith("as"):
            raise ExpressionError("EXPR001", f"unexpected '{alias.name}'", "a name needs `as`", text, start)
        return Named(alias.name, _convert(node.this, text))
    found = _convert(node, text)
    match found:
        case Column(name=name):
            return Named(name, found)
        case Star():
            return Named("*", found)
    raise ExpressionError("EXPR005", "this entry has no name", "write `... as name` after it", text, found.at)
