"""sqlglot's nodes translated into ours; what is beyond the subset is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from sqlglot import exp

from penstock.errors import did_you_mean
from penstock.operators.expressions.dialect import too_deep
from penstock.operators.expressions.literals import date_literal, timestamp_literal
from penstock.operators.expressions.problems import ExpressionError
from penstock.operators.expressions.tree import Call, Cast, Column, Expr, Literal, Star
from penstock.operators.expressions.types import TYPE_NAMES

#: Deeper expressions would overflow the stack of one engine or another.
MAX_DEPTH = 200
#: Sums of doubles and `case`s cannot be regrouped, and engines nest them: a thousand take Polars seconds.
MAX_CHAIN = 1_000

BINARY: dict[type[exp.Expr], str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.IntDiv: "div", exp.Mod: "%", exp.DPipe: "||",
    exp.EQ: "=", exp.NEQ: "<>", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=", exp.And: "and", exp.Or: "or",
    exp.NullSafeEQ: "is not distinct from", exp.NullSafeNEQ: "is distinct from",
}  # fmt: skip
#: Chains of these become one node: `a or b or c` is `or(a, b, c)`.
CHAINS = {"+", "*", "||", "and", "or"}

REFUSED: dict[type[exp.Expr], tuple[str, str]] = {
    exp.Subquery: ("a subquery", "join the other step first, or use `sql` with several steps in `from`"),
    exp.Select: ("a subquery", "join the other step first, or use `sql` with several steps in `from`"),
    exp.Exists: ("`exists`", "use a join with how=\"semi\""),
    exp.Window: ("a window function (`over`)", "aggregate first and join the result back"),
    exp.Filter: ("`filter (where ...)`", "write sum(case when ... then x end)"),
    exp.ILike: ("`ilike`", "write lower(a) like 'pattern'"),
    exp.SimilarTo: ("`similar to`", "use regexp_like(text, 'pattern')"),
    exp.RegexpLike: ("`rlike`", "use regexp_like(text, 'pattern')"),
    exp.Interval: ("`interval`", "use date_add('day', 1, a)"),
    exp.Concat: ("strings side by side", "join them with ||; a quote inside a string is doubled: 'it''s'"),
    exp.BitwiseXor: ("`^`", "use power(a, b)"),
    exp.BitwiseAnd: ("`&`", "write `and` between conditions"),
    exp.BitwiseOr: ("`|`", "write `or` between conditions, || between strings"),
    exp.BitwiseNot: ("`~`", "write `not`"),
    exp.Coalesce: ("`??`", "use coalesce(a, b)"),
    exp.AtTimeZone: ("`at time zone`", "timestamps are UTC; shift them with date_add('hour', 8, a)"),
    exp.Struct: ("a struct", ""),
    exp.Tuple: ("a tuple", "compare the columns one by one"),
    exp.Parameter: ("a parameter (`@name`)", "write ${name}: the flow fills it in"),
    exp.Placeholder: ("a placeholder", "write ${name}: the flow fills it in"),
    exp.Alias: ("a name (`as`) inside an expression", "names go after a whole column: `a + b as c`"),
    exp.Any: ("`any (...)`", "use `in (...)` or list_contains(list, a)"),
    exp.Collate: ("`collate`", "strings order by their bytes"),
    exp.JSONExtract: ("`->`", ""),
    exp.Order: ("`order by` inside a function", "sort in a step of its own"),
    exp.National: ("a national string", "write 'text'"),
}  # fmt: skip


_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")


def convert(node: exp.Expr, text: str = "") -> Expr:
    """Translate one scalar sqlglot node, parsed by this dialect, into our tree. Raises `ExpressionError`."""
    try:
        return _Converter(text).convert(node, 0)
    except RecursionError as error:
        raise too_deep(text) from error


class _Converter:
    """Carries the source text, which positions and a few spellings are read from."""

    def __init__(self, text: str) -> None:
        self.text = text

    def fail(self, code: str, message: str, hint: str = "", at: int = -1) -> NoReturn:
        raise ExpressionError(code, message, hint, self.text, at)

    def convert(self, node: Any, depth: int) -> Expr:
        if depth > MAX_DEPTH:
            self.fail(
                "EXPR004", f"the expression is more than {MAX_DEPTH} operations deep",
                "compute a part of it in a `derive` step first; write long lists of values as `a in (...)`",
            )  # fmt: skip
        operator = BINARY.get(type(node))
        if operator is not None:
            parts = self.operands(node, operator)
            if operator in "+*":
                self.countable(len(parts), node)
            args = tuple(self.convert(part, depth + 1) for part in parts)
            return Call(operator, args, at=_first(args))
        method = self.METHODS.get(type(node))
        if method is not None:
            return method(self, node, depth + 1)
        what, hint = REFUSED.get(type(node), ("", ""))
        if not what:
            words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(node).__name__).lower()
            what = f"`{words}`"
        self.fail("EXPR002", f"{what} cannot stand in an expression", hint, _position(node))

    def operands(self, node: Any, operator: str) -> list[Any]:
        """Both operands, or all of a chain's, walked without recursion: ten thousand `or`s are ordinary."""
        if operator not in CHAINS:
            return [node.this, node.expression]
        found = []
        kind = type(node)
        while type(node) is kind:
            found.append(node.expression)
            node = node.this
        found.append(node)
        return found[::-1]

    def countable(self, count: int, node: Any) -> None:
        if count > MAX_CHAIN:
            message = f"{count:,} terms in a row; the limit is {MAX_CHAIN:,}"
            self.fail("EXPR004", message, "compute a part in a `derive` step first, or join a table", _position(node))

    def paren(self, node: Any, depth: int) -> Expr:
        return self.convert(node.this, depth)

    def literal(self, node: Any, depth: int, negative: bool = False) -> Expr:
        at = _position(node)
        written = node.this
        if node.is_string:
            return Literal(written, at)
        if negative:
            written = f"-{written}"
            at -= 1
        if any(mark in written for mark in ".eE"):
            return Literal(float(written), at)
        value = int(written)
        if not -(2**63) <= value < 2**63:
            self.fail(
                "EXPR007", f"{written} does not fit 64 bits", f"write {written}.0 for a number with a fraction", at
            )
        return Literal(value, at)

    def constant(self, node: Any, depth: int) -> Expr:
        return Literal(None if isinstance(node, exp.Null) else bool(node.this), _position(node))

    def negation(self, node: Any, depth: int) -> Expr:
        if isinstance(node.this, exp.Literal) and not node.this.is_string:
            return self.literal(node.this, depth, negative=True)
        value = self.convert(node.this, depth)
        return Call("-", (value,), at=value.at)

    def logical_not(self, node: Any, depth: int) -> Expr:
        value = self.convert(node.this, depth)
        if isinstance(value, Call) and value.name == "is null":
            return Call("is not null", value.args, at=value.at)
        return Call("not", (value,), at=value.at)

    def column(self, node: Any, depth: int) -> Expr:
        if isinstance(node.this, exp.Star):
            return self.star(node.this, depth, node.table)
        at = _position(node)
        if node.args.get("db") is not None:
            self.fail("EXPR002", "a name has at most one qualifier: `step.column`", "", at)
        parts = [part for part in (node.args.get("table"), node.this) if part is not None]
        for part in parts:
            if not isinstance(part, exp.Identifier):
                self.fail("EXPR001", f"'{part}' is not a name", "", at)
            if not part.args.get("quoted") and not _IDENTIFIER.match(part.this):
                self.fail("EXPR001", f"'{part.this}' is not a name", f'write "{part.this}" in double quotes', at)
        return Column(node.name, node.table, at)

    def star(self, node: Any, depth: int, table: str = "") -> Expr:
        if any(node.args.get(key) for key in ("except_", "replace", "rename")):
            self.fail("EXPR002", "`*` stands alone", "list the columns you want", _position(node))
        return Star(table, _position(node))

    def function(self, node: Any, depth: int) -> Expr:
        at = _position(node)
        name = node.this if isinstance(node.this, str) else node.this.name
        arguments, distinct = node.expressions, False
        if len(arguments) == 1 and isinstance(arguments[0], exp.Distinct):
            arguments, distinct = arguments[0].expressions, True
        return Call(name.lower(), tuple(self.convert(arg, depth) for arg in arguments), distinct, at)

    def extract(self, node: Any, depth: int) -> Expr:
        value = self.convert(node.expression, depth)
        return Call(str(node.this.name).lower(), (value,), at=value.at)

    def is_test(self, node: Any, depth: int) -> Expr:
        value = self.convert(node.this, depth)
        if isinstance(node.expression, exp.Null):
            return Call("is null", (value,), at=value.at)
        if isinstance(node.expression, exp.Boolean):
            return Call("is true" if node.expression.this else "is false", (value,), at=value.at)
        self.fail("EXPR002", "`is` tests for null, true or false", "write = to compare", value.at)

    def between(self, node: Any, depth: int) -> Expr:
        args = tuple(self.convert(part, depth) for part in (node.this, node.args["low"], node.args["high"]))
        if node.args.get("symmetric"):
            self.fail("EXPR002", "`between symmetric` is not understood", "order the bounds", args[0].at)
        return Call("between", args, at=args[0].at)

    def membership(self, node: Any, depth: int) -> Expr:
        value = self.convert(node.this, depth)
        if node.args.get("query") is not None:
            what, hint = "`in (select ...)`", 'use a join with how="semi"'
            self.fail("EXPR002", f"{what} cannot stand in an expression", hint, value.at)
        if node.args.get("field") is not None or node.args.get("unnest") is not None:
            self.fail("EXPR001", "`in` needs a list in brackets", "a in (1, 2), or list_contains(list, a)", value.at)
        if not node.expressions:
            self.fail("EXPR001", "`in ()` has no values", "a in (1, 2)", value.at)
        return Call("in", (value, *(self.convert(part, depth) for part in node.expressions)), at=value.at)

    def like(self, node: Any, depth: int, escape: Expr | None = None) -> Expr:
        args: tuple[Expr, ...] = (self.convert(node.this, depth), self.convert(node.expression, depth))
        found: Expr = Call("like", args if escape is None else (*args, escape), at=args[0].at)
        return Call("not", (found,), at=args[0].at) if node.args.get("negate") else found

    def escaped(self, node: Any, depth: int) -> Expr:
        if not isinstance(node.this, exp.Like):
            self.fail("EXPR002", "`escape` belongs to `like`", "a like '10!%' escape '!'", _position(node))
        return self.like(node.this, depth, self.convert(node.expression, depth))

    def case(self, node: Any, depth: int) -> Expr:
        subject = None if node.this is None else self.convert(node.this, depth)
        parts: list[Expr] = []
        self.countable(len(node.args["ifs"]), node)
        for branch in node.args["ifs"]:
            condition = self.convert(branch.this, depth)
            parts.append(condition if subject is None else Call("=", (subject, condition), at=condition.at))
            parts.append(self.convert(branch.args["true"], depth))
        otherwise = node.args.get("default")
        parts.append(Literal(None) if otherwise is None else self.convert(otherwise, depth))
        return Call("case", tuple(parts), at=_first(parts))

    def cast(self, node: Any, depth: int) -> Expr:
        to = node.args["to"]
        written = to.this.value if isinstance(to, exp.DataType) else str(to)
        if isinstance(to, exp.DataType) and written == "USERDEFINED":
            written = str(to.args.get("kind") or "")
        literal = isinstance(node.this, exp.Literal) and node.this.is_string
        at = _position(node.this)
        if isinstance(to, exp.DataType) and to.expressions and "DECIMAL" not in written:
            self.fail("EXPR016", f"the type {to.sql()} cannot be cast to", f"types: {', '.join(TYPE_NAMES)}", at)
        name = _TYPES.get(written.upper())
        if name is None:
            known = [*TYPE_NAMES, *(spelling.lower() for spelling in _TYPES)]
            if "DECIMAL" in written:
                self.fail("EXPR016", "there are no decimal numbers here", "write cast(a as double)", at)
            hint = did_you_mean(written.lower(), known, f"types: {', '.join(TYPE_NAMES)}")
            self.fail("EXPR016", f"there is no type '{written.lower()}'", hint, at)
        before = self.text[:at].rstrip().lower() if at >= 0 else ""
        if literal and before.endswith(("date", "timestamp", "datetime")):
            # `date '...'` is a constant and must be right; cast('...' as date) is a cast and gives null.
            value = date_literal(node.this.this) if name == "date" else timestamp_literal(node.this.this)
            if value is None:
                form = "2024-01-31" if name == "date" else "2024-01-31 23:59:59"
                self.fail("EXPR008", f"'{node.this.this}' is not a {name}", f"write it as {name} '{form}'", at)
            return Literal(value, at)
        inner = self.convert(node.this, depth)
        return Cast(inner, name, inner.at)

    def bracket(self, node: Any, depth: int) -> Expr:
        value = self.convert(node.this, depth)
        if len(node.expressions) != 1 or isinstance(node.expressions[0], exp.Slice):
            self.fail("EXPR002", "brackets take one position", "list[1] is the first element", value.at)
        return Call("list_get", (value, self.convert(node.expressions[0], depth)), at=value.at)

    def array(self, node: Any, depth: int) -> Expr:
        args = tuple(self.convert(part, depth) for part in node.expressions)
        return Call("array", args, at=_first(args))

    METHODS: ClassVar[dict[type[exp.Expr], Callable[..., Expr]]] = {
        exp.Paren: paren, exp.Literal: literal, exp.Boolean: constant, exp.Null: constant, exp.Neg: negation,
        exp.Not: logical_not, exp.Column: column, exp.Star: star, exp.Anonymous: function, exp.Extract: extract,
        exp.Is: is_test, exp.Between: between, exp.In: membership, exp.Like: like, exp.Escape: escaped,
        exp.Case: case, exp.Cast: cast, exp.TryCast: cast, exp.Bracket: bracket, exp.Array: array,
    }  # fmt: skip


_TYPES = {
    "BOOLEAN": "bool", "TINYINT": "bigint", "SMALLINT": "bigint", "INT": "bigint", "BIGINT": "bigint",
    "FLOAT": "double", "DOUBLE": "double", "VARCHAR": "string", "TEXT": "string", "CHAR": "string",
    "DATE": "date", "TIMESTAMP": "timestamp", "DATETIME": "timestamp",
}  # fmt: skip


def _position(node: Any) -> int:
    """The offset of the leftmost position that sqlglot recorded in a node or under it; -1 where it kept none."""
    found = [part._meta["start"] for part in node.walk() if part._meta and part._meta.get("start") is not None]
    return min(found, default=-1)


def _first(parts: tuple[Expr, ...] | list[Expr]) -> int:
    return min((part.at for part in parts if part.at >= 0), default=-1)
