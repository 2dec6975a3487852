"""What the checks know of a value: its basic type, and whether it is a list. None of it is needed to run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa
import pyarrow.types as pt

Base = Literal[
    "text", "integer", "float", "boolean", "date", "timestamp", "bytes",
    "decimal", "time", "duration", "struct", "map", "null", "unknown",
]  # fmt: skip

#: What has canonical bytes; the rest cannot be hashed.
HASHABLE: frozenset[Base] = frozenset({"text", "integer", "boolean", "date", "timestamp", "bytes", "null"})
NUMERIC: frozenset[Base] = frozenset({"integer", "float", "boolean", "decimal", "null"})
INTEGRAL: frozenset[Base] = frozenset({"integer", "boolean", "null"})
TEMPORAL: frozenset[Base] = frozenset({"date", "timestamp", "integer", "float", "null"})
LOOKED_UP: frozenset[Base] = frozenset({"text", "integer", "boolean", "date", "timestamp", "bytes", "null"})
TEXTUAL: frozenset[Base] = frozenset({"text", "null"})
ANYTHING: frozenset[Base] = HASHABLE | NUMERIC | TEMPORAL


@dataclass(frozen=True)
class ValueType:
    """`listed` is None where it is not known whether the value is a list."""

    base: Base = "unknown"
    listed: bool | None = None

    def __str__(self) -> str:
        return f"a list of {self.base}" if self.listed else self.base

    def within(self, accepted: frozenset[Base]) -> bool:
        return self.base == "unknown" or self.base in accepted

    def scalar(self) -> ValueType:
        return replace(self, listed=False)

    def as_list(self) -> ValueType:
        return replace(self, listed=True)


UNKNOWN = ValueType()


def of_arrow(type_: pa.DataType | None) -> ValueType:
    """The value type of a column; nested lists and the like have base "struct": nothing maps them."""
    if type_ is None:
        return UNKNOWN
    if pt.is_list(type_) or pt.is_large_list(type_) or pt.is_fixed_size_list(type_) or _is_list_view(type_):
        inner = of_arrow(type_.value_type)
        return ValueType("struct" if inner.listed else inner.base, True)
    if pt.is_dictionary(type_):
        return of_arrow(type_.value_type)
    return ValueType(_base(type_), False)


def _is_list_view(type_: pa.DataType) -> bool:
    return bool(pt.is_list_view(type_) or pt.is_large_list_view(type_))


def _base(type_: pa.DataType) -> Base:
    tests: tuple[tuple[Base, tuple[object, ...]], ...] = (
        ("text", (pt.is_string, pt.is_large_string, pt.is_string_view)),
        ("boolean", (pt.is_boolean,)),
        ("integer", (pt.is_integer,)),
        ("float", (pt.is_floating,)),
        ("decimal", (pt.is_decimal,)),
        ("date", (pt.is_date,)),
        ("timestamp", (pt.is_timestamp,)),
        ("time", (pt.is_time,)),
        ("duration", (pt.is_duration,)),
        ("map", (pt.is_map,)),
        ("null", (pt.is_null,)),
        ("bytes", (pt.is_binary, pt.is_large_binary, pt.is_binary_view, pt.is_fixed_size_binary)),
    )
    for base, holds in tests:
        if any(test(type_) for test in holds):  # type: ignore[operator]
            return base
    return "struct"
