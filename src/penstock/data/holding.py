"""What each format can hold: the type that a column comes back with, or why it cannot be written."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
import pyarrow.types as t

from penstock.data.arrow_types import plain_values
from penstock.data.schema import Column, Schema

#: Formats whose files know nothing of roles.
WITHOUT_ROLES = frozenset({"csv", "json", "text", "libsvm", "orc"})


@lru_cache(4096)
def held(format_: str, type_: pa.DataType) -> pa.DataType | None:
    """The type that reading back gives; None where the format has no place for it."""
    type_ = plain_values(type_)
    if format_ == "parquet":
        return None if t.is_union(type_) else type_
    if format_ == "orc":
        return _in_orc(type_)
    if t.is_nested(type_):
        return _nested_in_json(type_) if format_ == "json" else None
    return _scalar(format_, type_)


def read_back(format_: str, schema: Schema) -> tuple[Schema, list[Column]]:
    """The schema that the twin input will give, and the columns that the format cannot hold."""
    columns, refused = [], []
    for column in schema:
        type_ = None if column.type is None else held(format_, column.type)
        if column.type is not None and type_ is None:
            refused.append(column)
        role = column.role if format_ not in WITHOUT_ROLES else ""
        columns.append(Column(column.name, type_, role))
    plan = schema.plan if format_ not in WITHOUT_ROLES else ""
    return Schema(tuple(columns), plan, schema.open), refused


def _scalar(format_: str, type_: pa.DataType) -> pa.DataType | None:
    if t.is_boolean(type_) or t.is_string(type_):
        return type_
    if t.is_uint64(type_):
        return pa.int64()
    if t.is_integer(type_):
        return pa.int64()
    if t.is_floating(type_) or t.is_decimal(type_):
        return pa.float64()
    if t.is_date(type_):
        return pa.date32() if format_ == "csv" else pa.string()
    if t.is_timestamp(type_):
        return pa.timestamp("us") if format_ == "csv" else pa.string()
    if t.is_null(type_) or t.is_time(type_):
        return pa.string()
    return None


def _nested_in_json(type_: pa.DataType) -> pa.DataType | None:
    if t.is_struct(type_):
        fields = [(f.name, held("json", f.type)) for f in type_]
        return None if any(inner is None for _, inner in fields) else pa.struct(fields)
    if t.is_list(type_) or t.is_large_list(type_) or t.is_fixed_size_list(type_):
        inner = held("json", type_.value_type)
        return None if inner is None else pa.list_(inner)
    return None


def _in_orc(type_: pa.DataType) -> pa.DataType | None:
    """ORC has signed integers only, timestamps of nanoseconds, and no durations, times or nulls of no type."""
    if t.is_struct(type_):
        fields = [(f.name, _in_orc(f.type)) for f in type_]
        return None if any(inner is None for _, inner in fields) else pa.struct(fields)
    if t.is_list(type_) or t.is_fixed_size_list(type_):
        inner = _in_orc(type_.value_type)
        return None if inner is None else pa.list_(inner)
    if t.is_unsigned_integer(type_) or t.is_float16(type_):
        return (
            {8: pa.int16(), 16: pa.int32(), 32: pa.int64(), 64: None}[type_.bit_width]
            if not t.is_float16(type_)
            else None
        )
    if t.is_timestamp(type_):
        return pa.timestamp("ns")
    if t.is_duration(type_) or t.is_time(type_) or t.is_null(type_) or t.is_date64(type_) or t.is_union(type_):
        return None
    return type_
