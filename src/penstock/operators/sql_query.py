"""A query as relations: WITH, FROM, WHERE, GROUP BY, HAVING, SELECT, DISTINCT, ORDER BY, LIMIT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from penstock.data.schema import Column, Schema
from penstock.errors import did_you_mean
from penstock.operators.aggregation import groups_of
from penstock.operators.base import Fault
from penstock.operators.column_checks import is_a, repeated
from penstock.operators.expressions import Column as ColumnNode
from penstock.operators.expressions import (
    Expr,
    Literal,
    Star,
    check,
    from_sqlglot,
    is_aggregate,
    named_from_sqlglot,
    order_of,
    rebuilt,
    to_polars,
)
from penstock.operators.join_keys import shared_type
from penstock.operators.sql_frames import Key, brought_to, ordered, selected
from penstock.operators.sql_join import filtered, joined
from penstock.operators.sql_relation import Relation, Scoped, SqlError

if TYPE_CHECKING:
    import polars as pl

Tables = Mapping[str, Relation]

_CLAUSES = frozenset({"with_", "expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset"})


@dataclass
class Query:
    """Works out queries of one text; faults of expressions are added to `faults`, other refusals raise `SqlError`."""

    text: str
    faults: list[Fault]

    def result(self, node: exp.Expression, tables: Tables) -> Relation:
        """The result of the whole query, its columns under their own names."""
        return self.relation(node, {name: _shared(table, node, name) for name, table in tables.items()})

    def relation(self, node: exp.Expression, tables: Tables) -> Relation:
        """The result of a query or a subquery."""
        if with_ := node.args.get("with_"):
            if with_.args.get("recursive"):
                raise SqlError("recursive queries are not known here")
            for cte in with_.expressions:
                made = self.relation(cte.this, tables).called(cte.alias)
                tables = {**tables, cte.alias: _shared(made, node, cte.alias)}
        if isinstance(node, exp.Select):
            return self._select(node, tables)
        if isinstance(node, exp.Union):
            result = self._union(node, tables)
        elif isinstance(node, exp.Subquery):
            result = self.relation(node.this, tables)
        elif isinstance(node, exp.Intersect | exp.Except):
            raise SqlError(f"{node.key} is not known here", "a semi or anti join says the same")
        else:
            raise SqlError("this is no SELECT", "write one query: select ... from ...")
        return _limited(self._reordered(result, node), node)

    # --- from ------------------------------------------------------------------------------------------------

    def _source(self, node: exp.Expression, tables: Tables) -> Relation:
        for name, value in node.args.items():
            if value and name not in ("this", "alias", "db", "with_"):
                raise SqlError(f"a table with {name.replace('_', ' ')} is not known here")
        alias = node.args.get("alias")
        if alias is not None and alias.args.get("columns"):
            raise SqlError("a table's alias cannot rename its columns", "rename them in a subquery")
        if isinstance(node, exp.Subquery):
            return self.relation(node.this, tables).called(node.alias)
        if not isinstance(node, exp.Table):
            raise SqlError(f"'{node.key}' cannot stand in from", "name one of the steps, or a subquery")
        if node.args.get("db"):
            port = f"{node.args['db'].name}.{node.name}"
            raise SqlError(f"'{port}' is no table", f"a port is called {port.replace('.', '_')} here", code="OPER110")
        if node.name not in tables:
            hint = did_you_mean(node.name, tables, f"the tables are {', '.join(tables)}")
            raise SqlError(f"there is no table '{node.name}' here", hint, _at(node.this), "OPER110")
        return tables[node.name].called(node.alias or node.name)

    def _from(self, node: exp.Select, tables: Tables) -> Relation:
        if not node.args.get("from_"):
            raise SqlError("the query reads no table", "write `from` and one of the steps")
        relation = self._source(node.args["from_"].this, tables)
        for join in node.args.get("joins") or ():
            right = self._source(join.this, tables)
            names = {scoped.qualifier for scoped in relation.columns}
            if names & {scoped.qualifier for scoped in right.columns}:
                twice = next(scoped.qualifier for scoped in right.columns)
                raise SqlError(f"two tables are called '{twice}'", "give one of them another name: `from clicks as c`")
            relation = joined(relation, right, join, self.text, self.faults)
        return relation

    # --- select ----------------------------------------------------------------------------------------------

    def _select(self, node: exp.Select, tables: Tables) -> Relation:
        self._refuse_unknown_clauses(node)
        source = self._from(node, tables)
        if where := node.args.get("where"):
            condition = self._resolved(source, from_sqlglot(where.this, self.text))
            if self._is_condition(condition, source.schema, "where"):
                source = filtered(source, condition)
        entries = self._entries(node, source)
        order = self._order(node, source, entries)
        having = None
        if node.args.get("having"):
            having = self._resolved(source, from_sqlglot(node.args["having"].this, self.text), entries)
        keys = self._group_keys(node, source, entries)
        values = [*entries.values(), *(key.expr for key in order), *([having] if having is not None else [])]
        if keys or node.args.get("group") or any(is_aggregate(value) for value in values):
            source, values = self._grouped(source, keys, values, having is not None)
        else:
            for value in values:
                self.faults += check(value, source.schema, text=self.text)[1]
        made = dict(zip(entries, values, strict=False))
        order = [replace(key, expr=values[len(entries) + i]) for i, key in enumerate(order)]
        if having is not None and self._is_condition(values[-1], source.schema, "having"):
            source = filtered(source, values[-1])
        return _limited(self._projected(source, made, order, bool(node.args.get("distinct"))), node)

    def _refuse_unknown_clauses(self, node: exp.Select) -> None:
        for name, value in node.args.items():
            if value and name not in _CLAUSES and not (name == "distinct" and not value.args.get("on")):
                raise SqlError(f"`{name.rstrip('_').replace('_', ' ')}` is not known here")
        for window in node.find_all(exp.Window):
            hint = "aggregate first and join the result, or sort and limit"
            raise SqlError("window functions are not known here", hint, _at(window))

    def _resolved(self, source: Relation, expr: Expr, aliases: Mapping[str, Expr] | None = None) -> Expr:
        """Over the frame's columns; `aliases` stand for names that no column has."""

        def instead(node: ColumnNode) -> Expr | None:
            if aliases is None or node.table or not isinstance(source.find(node), SqlError):
                return None
            return aliases.get(node.name)

        resolved, errors = source.resolve(expr, instead)
        self.faults += [error.fault(self.text) for error in errors]
        return Literal(None) if errors else resolved

    def _is_condition(self, expr: Expr, schema: Schema, clause: str) -> bool:
        import pyarrow as pa

        type_, faults = check(expr, schema, text=self.text)
        self.faults += faults
        if faults or type_ is None or pa.types.is_boolean(type_) or pa.types.is_null(type_):
            return not faults
        self.faults.append(Fault("OPER102", f"{clause}: the condition is {type_}, not true or false"))
        return False

    def _entries(self, node: exp.Select, source: Relation) -> dict[str, Expr]:
        """The select list, stars spread out, over the frame's columns."""
        found: list[tuple[str, Expr]] = []
        for item in node.expressions:
            entry = named_from_sqlglot(item, self.text)
            if isinstance(entry.expr, Star):
                found += _spread(entry.expr, source)
            else:
                found.append((entry.name, self._resolved(source, entry.expr)))
        self.faults += repeated([name for name, _ in found], "select")
        return dict(found)

    def _order(self, node: exp.Expression, source: Relation, entries: Mapping[str, Expr]) -> list[Key]:
        """Keys: a place in the select list, one of its names, or an expression over the source."""
        keys = []
        for item in node.args["order"].expressions if node.args.get("order") else ():
            order = order_of(item, self.text)
            expr = _placed(order.expr, entries)
            if isinstance(expr, ColumnNode) and not expr.table and expr.name in entries:
                expr = entries[expr.name]
            elif expr is order.expr:
                expr = self._resolved(source, expr, entries)
            keys.append(Key(expr, order.descending, order.nulls_first))
        return keys

    # --- group by --------------------------------------------------------------------------------------------

    def _group_keys(self, node: exp.Select, source: Relation, entries: Mapping[str, Expr]) -> list[Expr]:
        group = node.args.get("group")
        if group is None:
            return []
        if any(value for name, value in group.args.items() if name != "expressions"):
            raise SqlError("`group by` takes columns and expressions only")
        keys = []
        for item in group.expressions:
            if isinstance(item, exp.Cube | exp.Rollup | exp.GroupingSets):
                raise SqlError(f"`{item.key}` is not known here", "write a query each and union them")
            expr = from_sqlglot(item, self.text)
            placed = _placed(expr, entries)
            keys.append(placed if placed is not expr else self._resolved(source, expr, entries))
        return keys

    def _grouped(
        self, source: Relation, keys: Sequence[Expr], values: Sequence[Expr], having: bool
    ) -> tuple[Relation, list[Expr]]:
        """A row a group. Keys that are expressions become columns first, and stand for themselves in `values`."""
        computed: dict[Expr, ColumnNode] = {}
        by: list[str] = []
        columns = list(source.schema)
        frame = source.frame
        for i, key in enumerate(keys):
            if isinstance(key, ColumnNode):
                by.append(key.name)
                continue
            type_, found = check(key, source.schema, text=self.text)
            self.faults += found
            computed[key] = ColumnNode(f"\0key{i}", at=key.at)
            by.append(f"\0key{i}")
            columns.append(Column(f"\0key{i}", type_))
            if frame is not None:
                frame = frame.with_columns(to_polars(key, source.schema).alias(f"\0key{i}"))
        schema = Schema(tuple(columns), open=source.open)
        by = list(dict.fromkeys(by))
        values = [rebuilt(value, computed.get) for value in values]
        for value in values:
            self.faults += check(value, schema, by=by, text=self.text)[1]
        if self.faults:
            return Relation((), None, open=True), [Literal(None) for _ in values]
        groups = groups_of(by, values, schema)
        columns_after = tuple(Scoped("", column.name, column) for column in groups.schema)
        return Relation(columns_after, None if frame is None else groups.over(frame)), list(groups.exprs)

    # --- the result ------------------------------------------------------------------------------------------

    def _projected(
        self, source: Relation, entries: Mapping[str, Expr], order: Sequence[Key], distinct: bool
    ) -> Relation:
        schema = source.schema
        columns = []
        for name, expr in entries.items():
            known = schema.get(expr.name) if isinstance(expr, ColumnNode) else None
            columns.append(Column(name, check(expr, schema)[0], known.role if known else ""))
        for key in order:
            type_ = check(key.expr, schema)[0]
            if type_ is not None and not is_a(type_, "ordered"):
                self.faults.append(Fault("OPER102", f"order by: {type_} cannot be put in order"))
        result = Relation(tuple(Scoped("", column.name, column) for column in columns), None, source.open)
        if distinct:
            places = list(entries.values())
            if any(key.expr not in places for key in order):
                raise SqlError("with distinct, `order by` takes columns of the select list only")
            names = list(entries)
            order = [replace(key, expr=ColumnNode(names[places.index(key.expr)])) for key in order]
            if source.frame is None or self.faults:
                return result
            frame = selected(source.frame, entries, schema).unique(maintain_order=True)
            return result.with_frame(ordered(frame, order, result.schema))
        if source.frame is None or self.faults:
            return result
        return result.with_frame(selected(ordered(source.frame, order, schema), entries, schema))

    def _reordered(self, result: Relation, node: exp.Expression) -> Relation:
        """ORDER BY behind a union or a query in brackets: over the result's own columns."""
        itself: dict[str, Expr] = {scoped.name: ColumnNode(scoped.column.name) for scoped in result.columns}
        order = self._order(node, result, itself)
        if result.frame is None or self.faults:
            return result
        return result.with_frame(ordered(result.frame, order, result.schema))

    def _union(self, node: exp.Union, tables: Tables) -> Relation:
        left, right = self.relation(node.this, tables), self.relation(node.expression, tables)
        if left.open or right.open:
            return Relation((), None, open=True)
        if len(left.columns) != len(right.columns):
            counts = f"{len(left.columns)} columns and the other {len(right.columns)}"
            raise SqlError(f"one side of the union has {counts}", "name the same number on both sides")
        columns, ours, theirs = [], [], []
        for a, b in zip(left.columns, right.columns, strict=True):
            one, other = a.column.type, b.column.type
            shared = one if one == other else shared_type(one, other)
            if shared is None and one is not None and other is not None:
                said = f"column '{a.name}' is {one} on one side of the union and {other} on the other"
                self.faults.append(Fault("OPER106", said, f"write cast({a.name} as ...) in one of them"))
            columns.append(Column(a.column.name, shared, a.column.role if a.column.role == b.column.role else ""))
            ours.append((a.column.name, a.column.name))
            theirs.append((b.column.name, a.column.name))
        result = Relation(tuple(Scoped("", column.name, column) for column in columns), None)
        if left.frame is None or right.frame is None or self.faults:
            return result
        import polars as pl

        halves = [brought_to(side, names, result.schema) for side, names in ((left.frame, ours), (right.frame, theirs))]
        both: pl.LazyFrame = pl.concat(halves)
        return result.with_frame(both.unique(maintain_order=True) if node.args.get("distinct") else both)


def _shared(table: Relation, node: exp.Expression, name: str) -> Relation:
    """The table such that it is computed once, however often the query names it."""
    uses = sum(found.name == name for found in node.find_all(exp.Table))
    return table.with_frame(table.frame.cache()) if table.frame is not None and uses > 1 else table


def _spread(star: Star, source: Relation) -> list[tuple[str, Expr]]:
    """`*` and `a.*`: each column once."""
    found: dict[str, tuple[str, Expr]] = {}
    for scoped in source.columns:
        if star.table in ("", scoped.qualifier):
            found.setdefault(scoped.column.name, (scoped.name, ColumnNode(scoped.column.name)))
    if star.table and not found and not source.open:
        raise SqlError(f"there is no table '{star.table}' here", at=star.at, code="OPER110")
    return list(found.values())


def _placed(expr: Expr, entries: Mapping[str, Expr]) -> Expr:
    """`2` is the second entry of the select list."""
    if not (isinstance(expr, Literal) and isinstance(expr.value, int) and not isinstance(expr.value, bool)):
        return expr
    if not 1 <= expr.value <= len(entries):
        raise SqlError(f"the select list has no place {expr.value}", f"it has {len(entries)}", expr.at)
    return list(entries.values())[expr.value - 1]


def _limited(result: Relation, node: exp.Expression) -> Relation:
    counts = {}
    for name in ("limit", "offset"):
        clause = node.args.get(name)
        if clause is None:
            continue
        value = clause.args.get("expression")
        if not isinstance(clause, exp.Limit | exp.Offset) or not (isinstance(value, exp.Literal) and value.is_int):
            raise SqlError(f"`{name}` takes a whole number")
        counts[name] = int(value.name)
    if not counts or result.frame is None:
        return result
    return result.with_frame(result.frame.slice(counts.get("offset", 0), counts.get("limit")))


def _at(node: Any) -> int:
    return int((node.meta or {}).get("start", -1)) if hasattr(node, "meta") else -1
