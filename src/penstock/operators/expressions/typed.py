"""The type of every node of an expression against a schema, and every fault.

The result is a tree of `Typed` nodes that a translation follows: each says its type, and its arguments the type in
which they are to arrive. A node whose type cannot be known (an open schema, an earlier fault) is silent: one fault
is one problem.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime

import pyarrow as pa

from penstock.data.schema import Schema
from penstock.errors import did_you_mean
from penstock.operators.base import Fault
from penstock.operators.expressions.constants import constant_faults
from penstock.operators.expressions.functions import AGGREGATES, FUNCTIONS, KNOWN_ELSEWHERE, Function, Parameter
from penstock.operators.expressions.operator_types import OPERATORS, check_cast
from penstock.operators.expressions.problems import place
from penstock.operators.expressions.tree import Call, Cast, Column, Expr, Literal, Star
from penstock.operators.expressions.types import (
    BIGINT,
    BOOL,
    BY_NAME,
    CAST_HINT,
    DATE,
    DOUBLE,
    NULL,
    STRING,
    TIMESTAMP,
    Type,
    canonical_of,
    exactly,
    is_list,
    is_number,
    noun,
    unify,
)  # fmt: skip


@dataclass(frozen=True)
class Typed:
    """A node with its type and typed arguments; `wants` is what each argument is to be brought to (None: nothing)."""

    expr: Expr
    type: Type
    args: tuple[Typed, ...] = ()
    wants: tuple[Type, ...] = ()


class Checker:
    """Collects faults while it types one expression."""

    def __init__(self, schema: Schema, text: str) -> None:
        self.schema = schema
        self.text = text
        self.faults: list[Fault] = []
        self.known = {column.name: column.type for column in schema}

    def fault(self, code: str, message: str, at: int, hint: str = "") -> None:
        where = place(self.text, at) if self.text else ""
        self.faults.append(Fault(code, f"{message} ({where})" if where else message, hint))

    # --- nodes -------------------------------------------------------------------------------------------------

    def visit(self, expr: Expr) -> Typed:
        match expr:
            case Literal(value=value):
                return Typed(expr, literal_type(value))
            case Column():
                return Typed(expr, self.column(expr))
            case Cast(value=value, to=to):
                inner = self.visit(value)
                check_cast(self, inner.type, to, expr.at)
                return Typed(expr, BY_NAME[to], (inner,), (canonical_of(inner.type),))
            case Call():
                return self.call(expr)
            case Star():
                self.fault("EXPR002", "`*` stands only in a column list and in count(*)", expr.at)
                return Typed(expr, None)

    def column(self, expr: Column) -> Type:
        if expr.table:
            self.fault(
                "EXPR011", f"'{expr.table}.{expr.name}' has a qualifier, but there is only one table here", expr.at,
                f"write {expr.name}",
            )  # fmt: skip
            return None
        if expr.name in self.known:
            return self.known[expr.name]
        if not self.schema.open:
            hint = did_you_mean(expr.name, self.known, _columns_hint(self.known))
            if expr.name.lower() in CLOCKS:
                hint = NOT_NOW
            elif self.text[expr.at : expr.at + 1] == '"' and not hint.startswith("did"):
                hint = f"a string stands in single quotes: '{expr.name}'"
            self.fault("EXPR010", f"there is no column '{expr.name}'", expr.at, hint)
        return None

    def call(self, expr: Call) -> Typed:
        if expr.name in ("mod", "div") and len(expr.args) == 2:
            expr = replace(expr, name={"mod": "%", "div": "div"}[expr.name])
        stars = [isinstance(arg, Star) for arg in expr.args]
        if expr.name == "count" and stars == [True]:
            return Typed(replace(expr, args=()), BIGINT)
        args = tuple(self.visit(arg) for arg in expr.args)
        operator = OPERATORS.get(expr.name)
        if operator is not None:
            kind, wants = operator(self, expr, args)
            return Typed(expr, kind, args, wants)
        function = FUNCTIONS.get(expr.name)
        if function is None:
            if expr.name in KNOWN_ELSEWHERE:
                hint = f"here it is called {KNOWN_ELSEWHERE[expr.name]}"
            elif expr.name in CLOCKS:
                hint = NOT_NOW
            else:
                hint = did_you_mean(expr.name, FUNCTIONS, "docs/reference/expressions.md lists them all")
            self.fault("EXPR003", f"there is no function '{expr.name}'", expr.at, hint)
            return Typed(expr, None, args, (None,) * len(args))
        return self.function(expr, function, args)

    # --- functions of the table --------------------------------------------------------------------------------

    def function(self, expr: Call, function: Function, args: tuple[Typed, ...]) -> Typed:
        if not function.least <= len(args) <= (function.most or len(args)) or (function.name == "count" and not args):
            count = f"{len(args)} argument{'s' if len(args) != 1 else ''}"
            usage = f"count(*) or {function.signature}" if function.name == "count" else function.signature
            self.fault("EXPR012", f"'{function.name}' does not take {count}", expr.at, usage)
            return Typed(expr, None, args, (None,) * len(args))
        if expr.distinct and function.name != "count":
            self.fault("EXPR002", f"`distinct` stands only in count(distinct x), not in {function.name}", expr.at)
        parameters = _spread(function.parameters, len(args))
        before = len(self.faults)
        meeting = self.meeting(expr, function, parameters, args)
        wants = tuple(
            self.argument(function, parameter, arg, meeting) for parameter, arg in zip(parameters, args, strict=True)
        )
        if len(self.faults) == before:
            for message, at, hint in constant_faults(expr):
                self.fault("EXPR008", message, at, hint)
        return Typed(expr, _result(function, parameters, args, wants, meeting), args, wants)

    def meeting(
        self, expr: Call, function: Function, parameters: tuple[Parameter, ...], args: tuple[Typed, ...]
    ) -> Type:
        """The type that all arguments marked T (or list(T)) meet in."""
        found: Type = NULL
        for parameter, arg in zip(parameters, args, strict=True):
            kind = canonical_of(arg.type)
            if parameter.type == "list(T)" and kind is not None:
                kind = kind.value_type if is_list(kind) else None
            elif parameter.type != "T":
                continue
            if kind is None or found is None:
                found = None
                continue
            met = unify(found, kind)
            if met is None:
                self.fault("EXPR013", f"{function.name} mixes {noun(found)} with {noun(kind)}", arg.expr.at, CAST_HINT)
            found = met
        return found

    def argument(self, function: Function, parameter: Parameter, arg: Typed, meeting: Type) -> Type:
        """The type an argument is to arrive in; a fault where it cannot."""
        if parameter.literal and not (isinstance(arg.expr, Literal) and arg.expr.value is not None):
            self.fault(
                "EXPR008", f"{function.name} needs its '{parameter.name}' written out, not computed", arg.expr.at,
                function.signature,
            )  # fmt: skip
            return None
        kind = canonical_of(arg.type)
        if kind is None:
            return None
        wanted = parameter.type
        if wanted == "any":
            return kind
        if wanted == "T":
            return meeting
        if wanted == "list(T)":
            if is_list(kind) or kind == NULL:
                return None if meeting is None else pa.list_(meeting)
        elif wanted == "list(string)":
            if kind == NULL or (is_list(kind) and kind.value_type in (STRING, NULL)):
                return pa.list_(STRING)
        elif kind == NULL:
            return {"number": DOUBLE, "time": TIMESTAMP}.get(wanted) or BY_NAME[wanted]
        elif wanted == "number":
            if is_number(kind):
                return kind
        elif wanted == "time":
            if kind in (DATE, TIMESTAMP):
                return kind
        elif unify(BY_NAME[wanted], kind) == BY_NAME[wanted]:
            return BY_NAME[wanted]
        self.mismatch(function.name, wanted, kind, arg.expr.at, function.signature)
        return None

    def mismatch(self, name: str, wanted: str, kind: pa.DataType, at: int, hint: str) -> None:
        self.fault("EXPR013", f"'{name}' takes {NOUNS.get(wanted, f'a {wanted}')}, not {exactly(kind)}", at, hint)

    # --- aggregation -------------------------------------------------------------------------------------------

    def aggregation(self, expr: Expr, by: Collection[str] | None) -> None:
        """EXPR014: aggregates where there are no groups, inside one another, or beside a column of single rows."""
        waiting: list[tuple[Expr, bool]] = [(expr, False)]
        while waiting:
            node, inside = waiting.pop()
            if isinstance(node, Call) and node.name in AGGREGATES:
                if by is None:
                    self.fault(
                        "EXPR014", f"'{node.name}' needs a group of rows, but a value a row is computed here", node.at,
                        "use an `aggregate` step and join its result",
                    )  # fmt: skip
                    continue
                if inside:
                    self.fault("EXPR014", f"'{node.name}' stands inside another aggregate", node.at, "aggregate twice")
                    continue
                inside = True
            elif isinstance(node, Column) and by is not None and not inside and node.name not in by:
                self.fault(
                    "EXPR014", f"'{node.name}' has a value a row, but one a group is needed here", node.at,
                    f"write first({node.name}) or max({node.name}), or add it to `by`",
                )  # fmt: skip
            if isinstance(node, Call):
                waiting += [(arg, inside) for arg in reversed(node.args)]
            elif isinstance(node, Cast):
                waiting.append((node.value, inside))


#: What a sentence calls the type of a parameter.
NOUNS = {
    "bool": "a condition", "number": "a number", "double": "a number", "bigint": "a whole number",
    "time": "a date or timestamp", "list(T)": "a list", "list(string)": "a list of strings",
}  # fmt: skip
CLOCKS = frozenset({"current_date", "current_timestamp", "now", "today"})
NOT_NOW = "results must not depend on when they are computed: write date '${run.date}'"


def literal_type(value: object) -> pa.DataType:
    """The type of a literal: every whole number is a bigint, every other number a double."""
    match value:
        case None:
            return NULL
        case bool():
            return BOOL
        case int():
            return BIGINT
        case float():
            return DOUBLE
        case str():
            return STRING
        case datetime():
            return TIMESTAMP
        case date():
            return DATE
    raise AssertionError(f"no literal: {value!r}")


def _columns_hint(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f"columns: {', '.join(shown[:12])}{more}" if shown else ""


def _spread(parameters: tuple[Parameter, ...], count: int) -> tuple[Parameter, ...]:
    """One parameter an argument: the repeated one as often as needed."""
    found = [parameter for parameter in parameters if not parameter.repeated]
    repeated = next((parameter for parameter in parameters if parameter.repeated), None)
    if repeated is not None:
        found += [repeated] * (count - len(found))
    return tuple(found[:count])


def _result(
    function: Function,
    parameters: tuple[Parameter, ...],
    args: tuple[Typed, ...],
    wants: tuple[Type, ...],
    meeting: Type,
) -> Type:
    marked = [want for parameter, want in zip(parameters, wants, strict=True) if parameter.type == function.result]
    match function.result:
        case "T":
            return meeting
        case "list(T)":
            return None if meeting is None else pa.list_(meeting)
        case "list(string)":
            return pa.list_(STRING)
        case "number":
            return None if None in marked else DOUBLE if DOUBLE in marked else BIGINT
        case "time":
            return marked[0]
        case name:
            return BY_NAME[name]
