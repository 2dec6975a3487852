"""A relation while a SELECT is worked out: its columns as the text may call them, and the frame where there is one.

At check time there are no frames: the same code then only works out schemas and faults.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.data.schema import Column, Schema
from penstock.errors import did_you_mean
from penstock.operators.base import Fault
from penstock.operators.expressions import Column as ColumnNode
from penstock.operators.expressions import Expr, replace_columns
from penstock.operators.expressions.problems import place

if TYPE_CHECKING:
    import polars as pl


class SqlError(Exception):
    """What this SELECT cannot do. `at` is an offset in the text (-1: the whole)."""

    def __init__(self, message: str, hint: str = "", at: int = -1, code: str = "OPER109") -> None:
        super().__init__(message)
        self.hint, self.at, self.code = hint, at, code

    def fault(self, text: str) -> Fault:
        where = place(text, self.at)
        return Fault(self.code, f"{self} ({where})" if where else str(self), self.hint)


@dataclass(frozen=True)
class Scoped:
    """A column as the text may call it, and the column of the frame that it is."""

    qualifier: str
    name: str
    column: Column


@dataclass(frozen=True)
class Relation:
    columns: tuple[Scoped, ...]
    frame: pl.LazyFrame | None
    open: bool = False  # further columns may exist: names are not judged

    @staticmethod
    def of(qualifier: str, schema: Schema, frame: pl.LazyFrame | None) -> Relation:
        return Relation(tuple(Scoped(qualifier, c.name, c) for c in schema), frame, schema.open)

    @property
    def schema(self) -> Schema:
        """The frame's own columns, each once."""
        columns = {scoped.column.name: scoped.column for scoped in self.columns}
        return Schema(tuple(columns.values()), open=self.open)

    def called(self, qualifier: str) -> Relation:
        """The same under another name."""
        return Relation(tuple(Scoped(qualifier, s.name, s.column) for s in self.columns), self.frame, self.open)

    def with_frame(self, frame: pl.LazyFrame | None) -> Relation:
        return Relation(self.columns, frame, self.open)

    def find(self, node: ColumnNode) -> ColumnNode | SqlError:
        """The frame's column that the text means, or what is wrong with the name."""
        matches = [s for s in self.columns if s.name == node.name and node.table in ("", s.qualifier)]
        real = {match.column.name for match in matches}
        if len(real) == 1:
            return ColumnNode(real.pop(), at=node.at)
        if real:
            choices = " or ".join(f"{match.qualifier}.{match.name}" for match in matches)
            return SqlError(f"'{node.name}' may mean {choices}", "put the table's name before it", node.at, "OPER112")
        if self.open:
            return ColumnNode(node.name, at=node.at)
        qualifiers = {scoped.qualifier for scoped in self.columns}
        if node.table and node.table not in qualifiers:
            hint = did_you_mean(node.table, qualifiers, f"there are {', '.join(sorted(q for q in qualifiers if q))}")
            return SqlError(f"there is no table '{node.table}' here", hint, node.at, "OPER110")
        names = [s.name for s in self.columns if node.table in ("", s.qualifier)]
        shown = f"{node.table}.{node.name}" if node.table else node.name
        hint = did_you_mean(node.name, names, f"the columns are {', '.join(names[:8])}")
        return SqlError(f"there is no column '{shown}'", hint, node.at, "EXPR010")

    def resolve(self, expr: Expr, instead: Any = None) -> tuple[Expr, list[SqlError]]:
        """The expression over the frame's columns. `instead(node)` may give an expression for a name first."""
        errors: list[SqlError] = []

        def change(node: ColumnNode) -> Expr:
            if instead is not None and (found := instead(node)) is not None:
                return found  # type: ignore[no-any-return]
            meant = self.find(node)
            if isinstance(meant, SqlError):
                errors.append(meant)
                return node
            return meant

        return replace_columns(expr, change), errors

    def beside(self, other: Relation) -> Relation:
        """`other` with its frame's columns renamed so that none is called like one of ours."""
        taken = {scoped.column.name for scoped in self.columns}
        renames: dict[str, str] = {}
        for scoped in other.columns:
            name = scoped.column.name
            if name in taken and name not in renames:
                renames[name] = _free(f"{scoped.qualifier}.{scoped.name}", taken | set(renames.values()))
        columns = tuple(
            Scoped(s.qualifier, s.name, _called(s.column, renames.get(s.column.name, s.column.name)))
            for s in other.columns
        )
        return Relation(columns, None if other.frame is None else other.frame.rename(renames), other.open)


def _called(column: Column, name: str) -> Column:
    return Column(name, column.type, column.role)


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "'"
    return name
