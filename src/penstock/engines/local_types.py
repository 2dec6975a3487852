"""Polars schemas as the checks see them: Arrow types, in their plain (not large, not view) forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.data.schema import Column, Info, Schema

if TYPE_CHECKING:
    import polars as pl


def schema_of(frame: pl.LazyFrame, checked: Info | None = None) -> Schema:
    """What the frame really holds; the roles and the plan of columns that kept their names come from `checked`."""
    roles = {c.name: c.role for c in checked} if isinstance(checked, Schema) else {}
    plan = checked.plan if isinstance(checked, Schema) else ""
    columns = (Column(name, arrow_type(dtype), roles.get(name, "")) for name, dtype in frame.collect_schema().items())
    return Schema(tuple(columns), plan)


def arrow_type(dtype: pl.DataType) -> pa.DataType | None:
    """The Arrow type of a Polars type; None where Arrow has none (Python objects)."""
    import polars as pl

    if isinstance(dtype, pl.Object):
        return None
    return plain(pl.Series("", [], dtype=dtype).to_arrow().type)


def plain(type_: pa.DataType) -> pa.DataType:
    """`large_string` and `string_view` are `string` to a check, and so inside lists and structs."""
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(plain(type_.value_type))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(plain(type_.value_type), type_.list_size)
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(f.name, plain(f.type), f.nullable) for f in type_])
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, plain(type_.value_type), type_.ordered)
    return type_
