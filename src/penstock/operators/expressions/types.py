"""The few types that expressions compute in, and how Arrow's many come down to them.

A bare column keeps its own type. Everything computed is one of: bool, bigint, double, string, date, timestamp
(microseconds, UTC, without a zone) or a list of those; what is none of these passes through whole, uncomputed.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import pyarrow as pa

#: None where a type cannot be known.
Type: TypeAlias = pa.DataType | None

NULL, BOOL, BIGINT, DOUBLE, STRING = pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string()
DATE, TIMESTAMP = pa.date32(), pa.timestamp("us")

#: The names a `cast` may use, by the type each means.
BY_NAME: dict[str, pa.DataType] = {
    "bool": BOOL, "bigint": BIGINT, "double": DOUBLE, "string": STRING, "date": DATE, "timestamp": TIMESTAMP,
}  # fmt: skip
TYPE_NAMES = tuple(BY_NAME)
#: What to do where types do not meet.
CAST_HINT = "cast one of them: cast(a as double), cast(a as string)"
_NAMES = {kind: name for name, kind in BY_NAME.items()} | {NULL: "null"}


@cache
def canonical(kind: pa.DataType) -> pa.DataType:
    """The type that a column of `kind` computes in."""
    is_ = pa.types
    if is_.is_boolean(kind):
        return BOOL
    if is_.is_integer(kind):
        return BIGINT
    if is_.is_floating(kind) or is_.is_decimal(kind):
        return DOUBLE
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return STRING
    if is_.is_dictionary(kind):
        return canonical(kind.value_type)
    if is_.is_date(kind):
        return DATE
    if is_.is_timestamp(kind):
        return TIMESTAMP
    if is_list(kind):
        return pa.list_(canonical(kind.value_type))
    return kind


def canonical_of(kind: Type) -> Type:
    return None if kind is None else canonical(kind)


def is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    return kind in (BIGINT, DOUBLE)


def type_name(kind: pa.DataType) -> str:
    """What a message calls a canonical type."""
    if is_list(kind):
        return f"list({type_name(kind.value_type)})"
    return _NAMES.get(kind) or str(kind)


def noun(kind: pa.DataType) -> str:
    """The type in a sentence: "a string", "a number", "a list"."""
    if is_number(kind):
        return "a number"
    if is_list(kind):
        return "a list"
    return "null" if kind == NULL else f"a {type_name(kind)}"


def exactly(kind: pa.DataType) -> str:
    """As `noun`, where it matters which kind of number it is."""
    return {BIGINT: "a bigint", DOUBLE: "a double"}.get(kind) or noun(kind)


def unify(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Where two canonical types meet, or None: integers with doubles, dates with timestamps, null with all."""
    if left == right or right == NULL:
        return left
    if left == NULL:
        return right
    if is_number(left) and is_number(right):
        return DOUBLE
    if {left, right} == {DATE, TIMESTAMP}:
        return TIMESTAMP
    if is_list(left) and is_list(right):
        element = unify(left.value_type, right.value_type)
        return None if element is None else pa.list_(element)
    return None
