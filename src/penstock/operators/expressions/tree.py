"""The typed subset as a tree: five kinds of node, immutable, free of any engine and of the parser's library.

Operators are calls whose name is their SQL spelling ("+", "and", "is null", "between", "case"), so that a check and a
translation each need one table. `and`, `or`, `+`, `*` and `||` hold all the operands of a chain, left to right; the
others hold exactly the operands they are written with. `case` holds condition, value, condition, value, ..., otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: None, bool, int (within 64 bits), float, str, date, or a naive UTC datetime."""

    value: bool | int | float | str | date | datetime | None
    at: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Column:
    """A column by name, exactly as the data spells it; `table` is its qualifier, "" where none is written."""

    name: str
    table: str = ""
    at: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A function (lower case) or an operator applied to its arguments; `distinct` only in aggregates."""

    name: str
    args: tuple[Expr, ...]
    distinct: bool = False
    at: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Cast:
    """`cast(value as to)`; `to` is one of bigint, double, string, bool, date, timestamp, or a name nobody knows."""

    value: Expr
    to: str
    at: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Star:
    """`*` or `a.*`: every column; also the argument of `count(*)`."""

    table: str = ""
    at: int = field(default=-1, compare=False)


Expr = Literal | Column | Call | Cast | Star


@dataclass(frozen=True, slots=True)
class Named:
    """One entry of a column list: what it is called and what it computes (`Star` under the name "*")."""

    name: str
    expr: Expr


@dataclass(frozen=True, slots=True)
class Order:
    """One key of an ordering. Nulls come last in both directions unless `nulls first` is written."""

    expr: Expr
    descending: bool = False
    nulls_first: bool = False


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly under this one."""
    match expr:
        case Call(args=args):
            return args
        case Cast(value=value):
            return (value,)
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node, parents before children, left before right."""
    waiting = [expr]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(children(node)))


def columns_of(expr: Expr) -> tuple[Column, ...]:
    """Every column that it reads, in the order of first mention, each (table, name) once."""
    found = {(node.table, node.name): node for node in reversed(list(walk(expr))) if isinstance(node, Column)}
    return tuple(reversed(found.values()))


def replace_columns(expr: Expr, change: Callable[[Column], Expr]) -> Expr:
    """The same expression with every column replaced, e.g. qualified names by those of the joined frame."""
    return rebuilt(expr, lambda node: change(node) if isinstance(node, Column) else None)


def rebuilt(expr: Expr, instead: Callable[[Expr], Expr | None]) -> Expr:
    """The same expression with `instead(node)` in place of each node for which it is not None, from the outside in."""
    other = instead(expr)
    if other is not None:
        return other
    match expr:
        case Call(args=args):
            return replace(expr, args=tuple(rebuilt(arg, instead) for arg in args))
        case Cast(value=value):
            return replace(expr, value=rebuilt(value, instead))
        case _:
            return expr
