"""The joins of a SELECT: which columns are keys, which conditions are filters, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from penstock.operators.base import Fault
from penstock.operators.expressions import Call, Expr, check, columns_of, from_sqlglot, to_polars
from penstock.operators.expressions import Column as ColumnNode
from penstock.operators.join_condition import Pair
from penstock.operators.join_keys import common_type
from penstock.operators.sql_relation import Relation, Scoped, SqlError

if TYPE_CHECKING:
    import polars as pl
    from sqlglot import exp

How = Literal["inner", "left", "right", "full", "cross", "semi", "anti"]


def joined(left: Relation, right: Relation, node: exp.Join, text: str, faults: list[Fault]) -> Relation:
    """One join of the FROM clause. Faults of its condition are added; what cannot be raises `SqlError`."""
    how = _how(node)
    args = node.args
    if how == "cross" and (args.get("on") or args.get("using")):
        raise SqlError("a cross join takes no condition", "leave `cross` away")
    right = left.beside(right)
    if args.get("using"):
        return _using(left, right, [str(column.name) for column in args["using"]], how, faults)
    both = Relation((*left.columns, *right.columns), None, left.open or right.open)
    if how == "cross" or not args.get("on"):
        if how not in ("cross", "inner"):
            raise SqlError(f"a {how} join needs its keys", "write `on a.id = b.id`")
        return both.with_frame(_frames(left, right, lambda a, b: a.join(b, how="cross", maintain_order="left_right")))
    keys, of_right, rest = _parts(_resolved(both, from_sqlglot(args["on"], text), text, faults), left, right)
    if of_right and how in ("right", "full"):
        rest, of_right = [*rest, *of_right], []
    if rest and how != "inner":
        hint = "put the condition into `where`, or filter the table in a subquery first"
        raise SqlError(f"a {how} join matches by equality only", hint, rest[0].at)
    for condition in of_right:
        right = filtered(right, condition)
    result = both.with_frame(_keyed(left, right, keys, how, faults))
    for condition in rest:
        result = filtered(result, condition)
    return Relation(left.columns, result.frame, result.open) if how in ("semi", "anti") else result


def filtered(relation: Relation, condition: Expr) -> Relation:
    """The rows for which a resolved, checked condition is true."""
    if relation.frame is None:
        return relation
    return relation.with_frame(relation.frame.filter(to_polars(condition, relation.schema).fill_null(value=False)))


def _how(node: exp.Join) -> How:
    args = node.args
    if args.get("method"):
        raise SqlError(
            f"{str(args['method']).lower()} joins are not known here", "write `using (id)` or `on a.id = b.id`"
        )
    for name, value in args.items():
        if value and name not in ("this", "side", "kind", "on", "using"):
            raise SqlError(f"joins with {name.replace('_', ' ')} are not known here")
    kind, side = str(args.get("kind") or "").lower(), str(args.get("side") or "").lower()
    if kind in ("semi", "anti", "cross"):
        return cast(How, kind)
    if kind not in ("", "inner", "outer") or side not in ("", "left", "right", "full"):
        raise SqlError(f"{side} {kind} joins are not known here".strip())
    if not side and not args.get("on") and not args.get("using"):
        return "cross"
    return cast(How, side or "inner")


def _frames(left: Relation, right: Relation, join: Any) -> pl.LazyFrame | None:
    if left.frame is None or right.frame is None:
        return None
    found: pl.LazyFrame = join(left.frame, right.frame)
    return found


def _resolved(both: Relation, condition: Expr, text: str, faults: list[Fault]) -> Expr:
    resolved, errors = both.resolve(condition)
    found = [error.fault(text) for error in errors] or list(check(resolved, both.schema, text=text)[1])
    if found:
        faults += found
        return Call("and", ())
    return resolved


def _parts(condition: Expr, left: Relation, right: Relation) -> tuple[list[tuple[Expr, Expr]], list[Expr], list[Expr]]:
    """Equalities between the two sides, conditions on the right side alone, and what else there is."""
    of = {scoped.column.name: "left" for scoped in left.columns}
    of |= {scoped.column.name: "right" for scoped in right.columns}

    def sides(expr: Expr) -> set[str]:
        return {of.get(column.name, "left") for column in columns_of(expr)}

    keys, of_right, rest = [], [], []
    parts = condition.args if isinstance(condition, Call) and condition.name == "and" else (condition,)
    for part in parts:
        ends = [sides(arg) for arg in part.args] if isinstance(part, Call) and part.name == "=" else []
        if isinstance(part, Call) and ends == [{"left"}, {"right"}]:
            keys.append((part.args[0], part.args[1]))
        elif isinstance(part, Call) and ends == [{"right"}, {"left"}]:
            keys.append((part.args[1], part.args[0]))
        elif sides(part) == {"right"}:
            of_right.append(part)
        else:
            rest.append(part)
    return keys, of_right, rest


def _keyed(
    left: Relation, right: Relation, keys: Sequence[tuple[Expr, Expr]], how: How, faults: list[Fault]
) -> pl.LazyFrame | None:
    """The frames joined on the keys, both sides' columns kept."""
    on: list[list[pl.Expr]] = [[], []]
    for a, b in keys:
        types = check(a, left.schema)[0], check(b, right.schema)[0]
        if types[0] is None or types[1] is None:
            continue
        dtype, fault = common_type(Pair(_shown(a), _shown(b)), types[0], types[1])
        faults += [fault] if fault else []
        if left.frame is not None and right.frame is not None and fault is None:
            for side, expr, relation in ((0, a, left), (1, b, right)):
                key = to_polars(expr, relation.schema)
                on[side].append(key if dtype is None else key.cast(dtype))
    if not keys and how != "inner":
        raise SqlError(f"a {how} join needs an equality between the two tables", "write `on a.id = b.id`")

    def join(a: pl.LazyFrame, b: pl.LazyFrame) -> pl.LazyFrame:
        if not keys:
            return a.join(b, how="cross", maintain_order="left_right")
        if how in ("semi", "anti"):
            return a.join(b, left_on=on[0], right_on=on[1], how=how, maintain_order="left")
        return a.join(b, left_on=on[0], right_on=on[1], how=how, coalesce=False, maintain_order="left_right")

    return _frames(left, right, join)


def _shown(expr: Expr) -> str:
    return expr.name if isinstance(expr, ColumnNode | Call) else "key"


def _using(left: Relation, right: Relation, names: Sequence[str], how: How, faults: list[Fault]) -> Relation:
    """Keys of the same name on both sides stand once, filled from either."""
    pairs: list[tuple[str, str]] = []
    for name in names:
        found = [side.find(ColumnNode(name)) for side in (left, right)]
        for meant in found:
            if isinstance(meant, SqlError):
                raise meant
        pairs.append((cast(ColumnNode, found[0]).name, cast(ColumnNode, found[1]).name))
    casts = {}
    for a, b in pairs:
        ours, theirs = left.schema.get(a), right.schema.get(b)
        if ours is None or theirs is None or ours.type is None or theirs.type is None:
            continue
        casts[a], fault = common_type(Pair(a, b), ours.type, theirs.type)
        faults += [fault] if fault else []

    def join(a: pl.LazyFrame, b: pl.LazyFrame) -> pl.LazyFrame:
        import polars as pl

        to = {key: dtype for key, dtype in casts.items() if dtype is not None}
        a = a.with_columns(pl.col(key).cast(dtype) for key, dtype in to.items())
        b = b.rename({theirs: ours for ours, theirs in pairs})
        b = b.with_columns(pl.col(key).cast(dtype) for key, dtype in to.items())
        on = [key for key, _ in pairs]
        if how in ("semi", "anti"):
            return a.join(b, on=on, how=how, maintain_order="left")
        made = a.join(b, on=on, how=how, coalesce=True, maintain_order="left_right")
        return made.select(list(dict.fromkeys(s.column.name for s in columns)))

    merged = {theirs: ours for ours, theirs in pairs}
    ours_by_name = {scoped.column.name: scoped.column for scoped in left.columns}
    columns: tuple[Scoped, ...] = left.columns
    if how not in ("semi", "anti"):
        columns += tuple(
            Scoped(s.qualifier, s.name, ours_by_name[merged[s.column.name]]) if s.column.name in merged else s
            for s in right.columns
        )
    return Relation(columns, _frames(left, right, join), left.open or right.open)
