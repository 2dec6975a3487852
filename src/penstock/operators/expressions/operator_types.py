"""The types of operators: what each gives, what it brings its arguments to, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from penstock.operators.expressions.constants import constant_faults
from penstock.operators.expressions.tree import Call, Literal
from penstock.operators.expressions.types import (
    BIGINT,
    BOOL,
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
    type_name,
    unify,
)

if TYPE_CHECKING:
    from penstock.operators.expressions.typed import Checker, Typed

#: The result's type and what each argument is brought to; faults go to the checker.
Operator: TypeAlias = "Callable[[Checker, Call, tuple[Typed, ...]], tuple[Type, tuple[Type, ...]]]"

ORDERINGS = frozenset({"<", "<=", ">", ">=", "between"})
CASTS = {
    "bool": frozenset({BOOL, BIGINT, DOUBLE, STRING}),
    "bigint": frozenset({BOOL, BIGINT, DOUBLE, STRING}),
    "double": frozenset({BOOL, BIGINT, DOUBLE, STRING}),
    "string": frozenset({BOOL, BIGINT, DOUBLE, STRING, DATE, TIMESTAMP}),
    "date": frozenset({DATE, TIMESTAMP, STRING}),
    "timestamp": frozenset({DATE, TIMESTAMP, STRING}),
}


def _arithmetic(checker: Checker, expr: Call, args: tuple[Typed, ...]) -> tuple[Type, tuple[Type, ...]]:
    kinds: list[Type] = []
    for arg in args:
        before = len(checker.faults)
        kinds.append(_expect(checker, expr, arg, DOUBLE))
        if len(checker.faults) > before:
            break  # the other operand of a wrong operator is most often wrong for the same reason
    if None in kinds:
        return None, (None,) * len(args)
    if expr.name == "/":
        return DOUBLE, (DOUBLE,) * len(args)
    if expr.name == "div":
        for arg, kind in zip(args, kinds, strict=True):
            if kind == DOUBLE:
                checker.fault("EXPR013", "'div' takes whole numbers", arg.expr.at, "write trunc(a / b)")
        return BIGINT, (BIGINT,) * len(args)
    met = DOUBLE if DOUBLE in kinds else BIGINT
    return met, (met,) * len(args)


def _expect(checker: Checker, expr: Call, arg: Typed, wanted: pa.DataType) -> Type:
    """The canonical type of an operand that must be a number, bool or string; None (and a fault) if it is not."""
    kind = canonical_of(arg.type)
    if kind is None:
        return None
    if kind == NULL:
        return BIGINT if wanted == DOUBLE else wanted
    if kind == wanted or (wanted == DOUBLE and kind == BIGINT):
        return kind
    hint = CAST_HINT
    if wanted == DOUBLE and kind in (DATE, TIMESTAMP):
        hint = "use date_add('day', 1, a) or date_diff('day', a, b)"
    elif wanted == DOUBLE and kind == STRING and expr.name == "+":
        hint = "|| joins strings; cast(a as double) makes a number"
    elif wanted == STRING:
        hint = "write cast(a as string)" if expr.name == "like" else "|| joins strings (cast(a as string)); write `or`"
    elif wanted == BOOL:
        hint = "compare it with something: a > 0, a is not null"
    needs = {DOUBLE: "numbers", BOOL: "conditions", STRING: "strings"}[wanted]
    checker.fault("EXPR013", f"'{expr.name}' takes {needs}, not {exactly(kind)}", arg.expr.at, hint)
    return None


def _logic(checker: Checker, expr: Call, args: tuple[Typed, ...]) -> tuple[Type, tuple[Type, ...]]:
    for arg in args:
        _expect(checker, expr, arg, BOOL)
    return BOOL, (BOOL,) * len(args)


def _strings(checker: Checker, expr: Call, args: tuple[Typed, ...]) -> tuple[Type, tuple[Type, ...]]:
    for arg in args:
        before = len(checker.faults)
        _expect(checker, expr, arg, STRING)
        if len(checker.faults) > before:
            return None, (STRING,) * len(args)
    return STRING, (STRING,) * len(args)


def _like(checker: Checker, expr: Call, args: tuple[Typed, ...]) -> tuple[Type, tuple[Type, ...]]:
    _strings(checker, expr, args)
    for arg in args[1:]:
        if not isinstance(arg.expr, Literal):
            checker.fault(
                "EXPR008", "the pattern of `like` must be written out, not computed", arg.expr.at,
                "contains, starts_with and ends_with take computed strings",
            )  # fmt: skip
            return BOOL, (STRING,) * len(args)
    for message, at, hint in constant_faults(expr):
        checker.fault("EXPR008", message, at, hint)
    return BOOL, (STRING,) * len(args)


def _comparison(checker: Checker, expr: Call, args: tuple[Typed, ...]) -> tuple[Type, tuple[Type, ...]]:
    met: Type = NULL
    for arg in args:
        kind = canonical_of(arg.type)
        if kind is None:
            met = None
        elif met is not None:
            together = unify(met, kind)
            if together is None:
                _compared(checker, met, kind, arg.expr.at)
                return BOOL, (None,) * len(args)
            met = together
    if met is None and checker.faults:
        return None, (None,) * len(args)  # what is compared with this must not fail for the same reason
    if met is not None and is_list(met) and expr.name in ORDERINGS:
        checker.fault("EXPR013", "lists have no order", args[0].expr.at, "compare list_length(a) or list_get(a, 1)")
    return BOOL, (met,) * len(args)


def _compared(checker: Checker, left: pa.DataType, right: pa.DataType, at: int) -> None:
    kinds = {left, right}
    hint = CAST_HINT
    if BOOL in kinds:
        hint = "a condition is compared with nothing: write a < b and b < c"
    elif STRING in kinds and kinds & {DATE, TIMESTAMP}:
        name = "date" if DATE in kinds else "timestamp"
        hint = f"write {name} '2024-01-31', or cast(a as {name})"
    checker.fault("EXPR013", f"compares {noun(left)} with {noun(right)}", at, hint)


def _anything(checker: Checker, expr: Call, args: tuple[Typed, ...]) -> tuple[Type, tuple[Type, ...]]:
    return BOOL, tuple(None for _ in args)


def _case(checker: Checker, expr: Call, args: tuple[Typed, ...]) -> tuple[Type, tuple[Type, ...]]:
    conditions, values = args[:-1:2], (*args[1::2], args[-1])
    for condition in conditions:
        _expect(checker, expr, condition, BOOL)
    met: Type = NULL
    for value in values:
        kind = canonical_of(value.type)
        if kind is None or met is None:
            met = None
            continue
        together = unify(met, kind)
        if together is None:
            checker.fault("EXPR013", f"`case` mixes {noun(met)} with {noun(kind)}", value.expr.at, CAST_HINT)
            met = None
            break
        met = together
    return met, (*(BOOL if index % 2 == 0 else met for index in range(len(args) - 1)), met)


def check_cast(checker: Checker, kind: Type, to: str, at: int) -> None:
    source = canonical_of(kind)
    if source is None or source == NULL:
        return
    allowed = CASTS.get(to, frozenset())
    if source not in allowed:
        hint = f"{to} can be cast from {', '.join(sorted(type_name(t) for t in allowed))}"
        if source in (DATE, TIMESTAMP) and to in ("bigint", "double"):
            hint = "use epoch(a, 's')"
        elif is_number(source) and to in ("date", "timestamp"):
            hint = "use from_epoch(a, 's')"
        elif is_list(source):
            hint = "list_join(a, ',') makes a string of a list of strings"
        checker.fault("EXPR013", f"{exactly(source)} cannot be cast to {to}", at, hint)


#: What each operator's result is, and what each of its arguments is brought to.
OPERATORS: dict[str, Operator] = {
    **dict.fromkeys(("+", "-", "*", "/", "%", "div"), _arithmetic),
    **dict.fromkeys(("and", "or", "not", "is true", "is false"), _logic),
    **dict.fromkeys(
        ("=", "<>", "<", "<=", ">", ">=", "between", "in", "is distinct from", "is not distinct from"),
        _comparison,
    ),
    **dict.fromkeys(("is null", "is not null"), _anything),
    "||": _strings,
    "like": _like,
    "case": _case,
}
